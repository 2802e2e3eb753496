"""Figures of RevPure and its successor."""
