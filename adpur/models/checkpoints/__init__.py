"""Weights on disk: loading, converting, and where to get them."""
