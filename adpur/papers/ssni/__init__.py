"""Figures of SSNI."""
