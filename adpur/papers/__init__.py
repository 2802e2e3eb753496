"""Figures and tables of the papers; nothing imports it but the command line."""
