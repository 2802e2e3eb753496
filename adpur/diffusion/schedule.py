"""Noise schedules: how much signal and how much noise an image holds at time t."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from adpur.types import expand, root


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

    @abstractmethod
    def at(self, ratio: Tensor) -> Tensor:
        """The time whose noise-to-signal ratio sigma / alpha is `ratio` `(B,)`; differentiable."""

    @abstractmethod
    def label(self, t: Tensor) -> Tensor:
        """What a network trained on this schedule is told at t, `(B,)`."""

    @abstractmethod
    def quantile(self, share: Tensor, until: float | None = None) -> Tensor:
        """The time `(B,)` below which a share in (0, 1) of a network's training times fall.

        Args:
            share: `(B,)`, in (0, 1).
            until: the network was trained on the part of the distribution up to this time only;
                None for all of it.
        """

    def snr(self, t: Tensor) -> Tensor:
        """The signal-to-noise ratio (alpha_t / sigma_t)^2, fp64 `(B,)`."""
        return (self.alpha(t) / self.floored(t)) ** 2

    def diffuse(self, x: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Forward process in closed form (DDPM Eq. 4): `x` and unit noise `eps` `(B, C, H, W)`."""
        return expand(self.alpha(t), x) * x + expand(self.sigma(t), x) * eps

    def score(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """(alpha_t x0_hat - x_t) / sigma_t^2 = -eps_hat / sigma_t, by Tweedie's formula.

        Where sigma_t = 0 it stays finite and means nothing: only waiting rows are there.
        """
        variance = expand(self.floored(t) ** 2, x_t)
        return (expand(self.alpha(t), x_t) * x0 - x_t) / variance

    def noise_in(self, x_t: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """(x_t - alpha_t x0) / sigma_t: the unit noise of `x_t` if the image is `x0`."""
        return (x_t - expand(self.alpha(t), x_t) * x0) / expand(self.floored(t), x_t)

    def floored(self, t: Tensor) -> Tensor:
        """sigma_t as a divisor: 1 where it is 0."""
        sigma = self.sigma(t)
        return torch.where(sigma > 0, sigma, 1.0)

    def posterior_variance(self, t: Tensor, s: Tensor) -> Tensor:
        """Variance of x_s given x_t and x_0, fp64 `(B,)` (DDPM Eq. 7); 0 where nothing moves."""
        sigma_s = self.sigma(s)
        ratio = self.alpha(t) / self.alpha(s) * sigma_s / self.floored(t)
        return sigma_s**2 * (1 - ratio**2).clamp_min(0)


class ContinuousSchedule(NoiseSchedule):
    """A schedule with an SDE: dx = drift(t) x dt + sqrt(spread(t)) dW (Song et al. 2021, Eq. 5)."""

    @abstractmethod
    def drift(self, t: Tensor) -> Tensor:
        """D log alpha / dt, fp64 `(B,)`."""

    @abstractmethod
    def spread(self, t: Tensor) -> Tensor:
        """g(t)^2 = d sigma^2 / dt - 2 drift sigma^2, fp64 `(B,)`."""


@dataclass(frozen=True)
class DiscreteVP(NoiseSchedule):
    """DDPM's schedule: integer t in 0..T, abar(0) = 1, abar(t) = prod_{i<=t} (1 - beta_i).

    The network's label at t is t - 1. Defaults to the linear betas of Ho et al. (2020). At a real
    t, abar is interpolated linearly: what another schedule's times fall on.

    >>> schedule = DiscreteVP()
    >>> t = torch.tensor([0, 100])
    >>> [round(v, 4) for v in (schedule.sigma(t) / schedule.alpha(t)).tolist()]
    [0.0, 0.3388]
    """

    betas: Sequence[float] = field(
        default=tuple(np.linspace(1e-4, 0.02, 1000).tolist()), repr=False
    )

    @property
    def end(self) -> int:
        """T."""
        return len(self.betas)

    def alpha(self, t: Tensor) -> Tensor:
        """sqrt(abar_t)."""
        return self._abar(t).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - abar_t)."""
        return root(1 - self._abar(t))

    def at(self, ratio: Tensor) -> Tensor:
        """The real t with abar_t = 1 / (1 + ratio^2) (ScoreOpt on VP models), at most T."""
        table = self._table(ratio.device)
        abar = 1 / (1 + ratio.double() ** 2)
        below = torch.searchsorted(table.flip(0), abar.detach()).clamp(1, self.end)
        low = self.end - below  # abar lies between table[low + 1] and table[low]
        share = (table[low] - abar) / (table[low] - table[low + 1])
        return (low + share).clamp(0, self.end)

    def label(self, t: Tensor) -> Tensor:
        """The index t - 1 of DDPM, and 0 where t < 1."""
        return (t - 1).clamp_min(0)

    def quantile(self, share: Tensor, until: float | None = None) -> Tensor:
        """Uniform on 1..T (DDPM Algorithm 1), or on 1..until."""
        return (share * int(self.end if until is None else until)).long() + 1

    def _abar(self, t: Tensor) -> Tensor:
        table = self._table(t.device)
        if not t.is_floating_point():
            return table[t]
        low = t.detach().floor().long().clamp(0, self.end - 1)
        return torch.lerp(table[low], table[low + 1], t.double() - low)

    def _table(self, device: torch.device) -> Tensor:
        if device not in self._tables:
            self._tables[device] = self._tables[torch.device("cpu")].to(device)
        return self._tables[device]

    @cached_property
    def _tables(self) -> dict[torch.device, Tensor]:
        """Abar 0..T, once a device: a copy at every step would stop an accelerator."""
        with torch.inference_mode(False):  # a cached inference tensor would break every attack
            betas = torch.tensor((0.0, *self.betas), dtype=torch.float64)
            return {torch.device("cpu"): (1 - betas).cumprod(0)}


@dataclass(frozen=True)
class LinearVP(ContinuousSchedule):
    """The VP-SDE of Song et al. (2021): t in [0, 1], beta(t) = beta_min + t (beta_max - beta_min).

    The network's label is 999 t, as in score_sde. alpha_t = exp(-(beta_min t + (beta_max -
    beta_min) t^2 / 2) / 2).

    >>> t = torch.tensor([0.1], dtype=torch.float64)
    >>> schedule = LinearVP()
    >>> round((schedule.sigma(t) / schedule.alpha(t)).item(), 4), round(schedule.at(
    ...     schedule.sigma(t) / schedule.alpha(t)).item(), 12)
    (0.3402, 0.1)
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    @property
    def end(self) -> float:
        """1."""
        return 1.0

    def alpha(self, t: Tensor) -> Tensor:
        """Exp of half the integral of -beta."""
        return (-0.5 * self._integral(t)).exp()

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha^2)."""
        return root(-torch.expm1(-self._integral(t)))

    def at(self, ratio: Tensor) -> Tensor:
        """The root of the integral of beta = log(1 + ratio^2), at most 1."""
        wanted, rise = torch.log1p(ratio.double() ** 2), self.beta_max - self.beta_min
        root = (self.beta_min**2 + 2 * rise * wanted).sqrt()
        return (2 * wanted / (self.beta_min + root)).clamp_max(self.end)

    def label(self, t: Tensor) -> Tensor:
        """999 t."""
        return 999 * t

    def drift(self, t: Tensor) -> Tensor:
        """-beta(t) / 2."""
        return -0.5 * self.spread(t)

    def spread(self, t: Tensor) -> Tensor:
        """beta(t)."""
        return self.beta_min + t.double() * (self.beta_max - self.beta_min)

    def quantile(self, share: Tensor, until: float | None = None) -> Tensor:
        """Uniform on [1e-3, 1] (Song et al. 2021, appendix C), or on [1e-3, until]."""
        return 1e-3 + ((self.end if until is None else until) - 1e-3) * share

    def _integral(self, t: Tensor) -> Tensor:
        t = t.double()
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2


@dataclass(frozen=True)
class VE(ContinuousSchedule):
    """EDM's schedule: t is sigma itself, x_t = x_0 + t eps (Karras et al. 2022, section 3).

    The network's label is log(t) / 4, EDM's c_noise.
    """

    sigma_max: float = 80.0

    @property
    def end(self) -> float:
        """sigma_max."""
        return self.sigma_max

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        """Time and noise are one."""
        return t.double()

    def at(self, ratio: Tensor) -> Tensor:
        """The ratio."""
        return ratio.double()

    def label(self, t: Tensor) -> Tensor:
        """log(t) / 4, finite at 0."""
        return t.double().clamp_min(1e-6).log() / 4

    def quantile(self, share: Tensor, until: float | None = None) -> Tensor:
        """Log-normal, ln(sigma) ~ N(-1.2, 1.2^2) (EDM Table 1), at most sigma_max or `until`."""
        share = share.double()
        if until is not None and until < self.sigma_max:  # the share of the whole distribution
            share = share * NormalDist(-1.2, 1.2).cdf(math.log(until))
        return (1.2 * torch.special.ndtri(share) - 1.2).exp().clamp_max(self.sigma_max)

    def drift(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t, dtype=torch.float64)

    def spread(self, t: Tensor) -> Tensor:
        """2 t."""
        return 2 * t.double()


@dataclass(frozen=True)
class RectifiedFlow(ContinuousSchedule):
    """The straight path of rectified flow (Liu et al. 2023; Lipman et al. 2023), t in [0, 1].

    x_t = (1 - t) x_0 + t eps. Its network predicts the velocity dx_t / dt = eps - x_0
    (`FlowDenoiser`) and is told `steps` t. At t = 1 no image is left: the ratio is infinite there.

    >>> t = torch.tensor([0.25])
    >>> schedule = RectifiedFlow()
    >>> (schedule.alpha(t) + schedule.sigma(t)).item(), schedule.at(torch.tensor([1.0])).item()
    (1.0, 0.5)
    """

    steps: int = 1000

    @property
    def end(self) -> float:
        """1."""
        return 1.0

    def alpha(self, t: Tensor) -> Tensor:
        """1 - t."""
        return 1 - t.double()

    def sigma(self, t: Tensor) -> Tensor:
        """Time and noise are one."""
        return t.double()

    def at(self, ratio: Tensor) -> Tensor:
        """Ratio / (1 + ratio)."""
        ratio = ratio.double()
        return torch.where(ratio.isinf(), 1.0, ratio / (1 + ratio))

    def label(self, t: Tensor) -> Tensor:
        """`steps` t."""
        return self.steps * t

    def quantile(self, share: Tensor, until: float | None = None) -> Tensor:
        """Uniform on [0, 1], or on [0, until]."""
        return share * (self.end if until is None else until)

    def drift(self, t: Tensor) -> Tensor:
        """-1 / (1 - t)."""
        return -1 / self.alpha(t)

    def spread(self, t: Tensor) -> Tensor:
        """2 t / (1 - t)."""
        return 2 * t.double() / self.alpha(t)
