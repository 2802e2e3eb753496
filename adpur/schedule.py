"""Noise schedules: how much signal and how much noise an image holds at time t."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from adpur.types import expand


class NoiseSchedule(ABC):
    """x_t = alpha_t x_0 + sigma_t eps, with t in the schedule's own unit, one per row `(B,)`."""

    @property
    @abstractmethod
    def end(self) -> float:
        """The largest valid t."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale at t, fp64 `(B,)`."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale at t, fp64 `(B,)`."""

    def diffuse(self, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Forward process in closed form (DDPM Eq. 4): `x` and unit noise `eps` `(B, C, H, W)`."""
        return expand(self.alpha(t), x) * x + expand(self.sigma(t), x) * eps


@dataclass(frozen=True)
class DiscreteVP(NoiseSchedule):
    """DDPM's schedule: integer t in 0..T, abar(0) = 1, abar(t) = prod_{i<=t} (1 - beta_i).

    The network's label at t is t - 1. Defaults to the linear betas of Ho et al. (2020).

    >>> schedule = DiscreteVP()
    >>> t = torch.tensor([0, 100])
    >>> [round(v, 4) for v in (schedule.sigma(t) / schedule.alpha(t)).tolist()]
    [0.0, 0.3388]
    """

    betas: Sequence[float] = field(
        default=tuple(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).tolist()), repr=False
    )

    @property
    def end(self) -> int:
        """T."""
        return len(self.betas)

    def alpha(self, t: Tensor) -> Tensor:
        """sqrt(abar_t)."""
        return self._abar.to(t.device)[t].sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - abar_t)."""
        return (1 - self._abar.to(t.device)[t]).sqrt()

    @cached_property
    def _abar(self) -> Tensor:
        with torch.inference_mode(False):  # a cached inference tensor would break every attack
            betas = torch.tensor((0.0, *self.betas), dtype=torch.float64)
            return (1 - betas).cumprod(0)
