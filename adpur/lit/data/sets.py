"""The data sets by name."""

from adpur.lit.data.cifar import Cifar10, Cifar100
from adpur.lit.data.digits import Digits
from adpur.lit.data.imagenet import ImageNet
from adpur.lit.data.svhn import SVHN
from adpur.lit.data.tiny_imagenet import TinyImageNet

__all__ = ["SVHN", "Cifar10", "Cifar100", "Digits", "ImageNet", "TinyImageNet"]
