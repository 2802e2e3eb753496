"""Figures of analyses: one column of a paper wide, in the reports' style."""
