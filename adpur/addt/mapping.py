"""From an accumulated gradient to noise a diffusion model can be trained on."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Mapping(ABC):
    """What CGPO makes of its accumulated gradient delta before it is mixed into the noise."""

    @abstractmethod
    def __call__(self, delta: Tensor, gaussian: Tensor) -> Tensor:
        """`delta` `(B, C, ...)` brought to the scale of unit noise; `gaussian` is a fresh draw."""


@dataclass(frozen=True)
class RBGM(Mapping):
    """Rank-Based Gaussian Mapping (ADDT section 5.1), for each image and channel by itself.

    The Gaussian's k-th smallest value goes where delta has its k-th smallest. Ties keep the order
    of the pixels.

    >>> RBGM()(torch.tensor([[[3.0, 1.0, 2.0]]]), torch.tensor([[[0.1, -1.0, 0.7]]]))
    tensor([[[ 0.7000, -1.0000,  0.1000]]])
    """

    def __call__(self, delta: Tensor, gaussian: Tensor) -> Tensor:
        """See the class."""
        return ranked(gaussian, delta)


@dataclass(frozen=True)
class Unmapped(Mapping):
    """Without RBGM: the accumulated gradient as it is, however small (ICLR Table 6)."""

    def __call__(self, delta: Tensor, gaussian: Tensor) -> Tensor:
        """See the class."""
        return delta


@dataclass(frozen=True)
class Rescaled(Mapping):
    """A control: each image's delta at the expected norm of Gaussian noise, sqrt(C H W)."""

    def __call__(self, delta: Tensor, gaussian: Tensor) -> Tensor:
        """See the class."""
        flat = delta.flatten(1)
        scale = flat.shape[1] ** 0.5 / _divisor(flat.norm(dim=1, keepdim=True))
        return (flat * scale).view_as(delta)


@dataclass(frozen=True)
class Standardised(Mapping):
    """A control: mean 0 and variance 1 for each image and channel, delta's own shape kept."""

    def __call__(self, delta: Tensor, gaussian: Tensor) -> Tensor:
        """See the class."""
        flat = _channels(delta)
        flat = flat - flat.mean(-1, keepdim=True)
        return (flat / _divisor(flat.std(-1, correction=0, keepdim=True))).view_as(delta)


@dataclass(frozen=True)
class ReverseRBGM(Mapping):
    """A control: delta's values, standardised, in the order of the Gaussian."""

    def __call__(self, delta: Tensor, gaussian: Tensor) -> Tensor:
        """See the class."""
        return ranked(Standardised()(delta, gaussian), gaussian)


@dataclass(frozen=True)
class RandomOrder(Mapping):
    """A control: Gaussian values in an order that owes nothing to delta."""

    def __call__(self, delta: Tensor, gaussian: Tensor) -> Tensor:
        """See the class."""
        return gaussian


def ranked(values: Tensor, order: Tensor) -> Tensor:
    """The `values` of each image and channel, placed as `order`'s ranks are; both `(B, C, ...)`."""
    places = _channels(order).argsort(dim=-1, stable=True)
    out = torch.empty_like(_channels(values))
    return out.scatter_(-1, places, _channels(values).sort(-1).values).view_as(values)


def _channels(v: Tensor) -> Tensor:
    return v.reshape(*v.shape[:2], -1)


def _divisor(v: Tensor) -> Tensor:
    """A scale to divide by: 1 where all is zero."""
    return torch.where(v > 0, v, 1.0)
