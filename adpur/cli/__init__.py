"""The command line; `adpur --help` needs no torch."""

from adpur.cli.entry import main

__all__ = ["main"]
