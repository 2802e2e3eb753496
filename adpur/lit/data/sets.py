"""The data sets by name."""

from adpur.lit.data.digits import Digits

__all__ = ["Digits"]
