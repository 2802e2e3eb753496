"""SSNI's reweighting: from the norm of a score to a noise level."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.purify.levels.reference import Reference


class Curve(ABC):
    """SSNI's reweighting f(n, t*): from a score norm to a noise level."""

    @abstractmethod
    def reweight(self, norm: Tensor, base: float, reference: Reference) -> Tensor:
        """t(x) for each norm `(B,)`."""

    @abstractmethod
    def ceiling(self, base: float) -> float:
        """The largest t(x) that any norm can give."""


@dataclass(frozen=True)
class Flat(Curve):
    """f = t*: the baseline every other curve is compared with (SSNI Appendix C)."""

    def reweight(self, norm: Tensor, base: float, reference: Reference) -> Tensor:
        """t* whatever the norm."""
        return torch.full_like(norm, float(base))

    def ceiling(self, base: float) -> float:
        """t*."""
        return base


@dataclass(frozen=True)
class Linear(Curve):
    """SSNI-L: t = t* clamp((n - low) / (high - low), 0, 1) + bias (SSNI Eq. 8).

    The paper's extremes include n itself, which per image is exactly this clamp; taking them
    from the reference keeps t(x) independent of the batch.

    Args:
        bias: b.
        batch: the extremes include the norms of all images at hand, as in the released code.
            **t(x) then depends on an image's batch mates**: on the loader's batch size, on which
            images an attack still works on, on where a run was interrupted. The trust report's
            check T5 says so. For comparison with numbers that were made like that, and no others.
    """

    bias: float = 0.0
    batch: bool = False

    def reweight(self, norm: Tensor, base: float, reference: Reference) -> Tensor:
        """See the class."""
        low, high = reference.low, reference.high
        if self.batch and len(norm):
            low, high = min(low, norm.min().item()), max(high, norm.max().item())
        share = (norm - low) / (high - low)
        return base * share.clamp(0, 1) + self.bias

    def ceiling(self, base: float) -> float:
        """t* + bias."""
        return base + self.bias


@dataclass(frozen=True)
class Sigmoid(Curve):
    """SSNI-N: t = (t* + bias) / (1 + exp(-(n - mean) / tau)) (SSNI Eq. 9).

    Args:
        tau: temperature, in units of the norm (20 in the paper, for 3072 dimensions).
        bias: raises the ceiling.
        relative: `tau` counts standard deviations of the reference norms instead.
    """

    tau: float = 20.0
    bias: float = 0.0
    relative: bool = False

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ConfigError(f"Sigmoid tau must be positive, got {self.tau}")

    def reweight(self, norm: Tensor, base: float, reference: Reference) -> Tensor:
        """See the class."""
        tau = self.tau * (reference.sd if self.relative else 1.0)
        # not torch.sigmoid, whose last bit depends on a row's place in the batch; exp's does not
        away = ((reference.mean - norm) / tau).clamp_max(700)  # exp stays finite, its gradient too
        return (base + self.bias) / (1 + away.exp())

    def ceiling(self, base: float) -> float:
        """t* + bias."""
        return base + self.bias
