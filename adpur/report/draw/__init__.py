"""Figures in the reports' style."""
