"""Loggers, and what they are told."""
