"""Figures of ADDT."""
