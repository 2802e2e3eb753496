"""The data sets by name."""

from adpur.lit.data.cifar10 import Cifar10
from adpur.lit.data.digits import Digits

__all__ = ["Cifar10", "Digits"]
