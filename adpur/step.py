"""One step of the reverse process, from t to s <= t."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from adpur.errors import ConfigError
from adpur.models.denoiser import Denoiser
from adpur.noise import Noise, Stream
from adpur.types import expand


class Stepped(NamedTuple):
    """x_s and the x0_hat it was made from, both `(B, C, H, W)`."""

    x: Tensor
    x0: Tensor


class Step(ABC):
    """A rule for x_s given x_t; `noise.step` counts the steps that remain, never those done."""

    @property
    @abstractmethod
    def stream(self) -> Stream | None:
        """The stream it draws from at every step, which a loop may draw ahead; None if none."""

    @abstractmethod
    def step(self, x: Tensor, t: Tensor, s: Tensor, denoiser: Denoiser, noise: Noise) -> Stepped:
        """x_s from x_t, with t and s `(B,)`; sigma_s = 0 adds no noise."""


@dataclass(frozen=True)
class Ancestral(Step):
    """DDPM (eta 1), DDIM (eta 0) and everything between, in one formula.

    x_s = alpha_s x0 + sqrt(sigma_s^2 - c^2) (x_t - alpha_t x0) / sigma_t + c' z, with
    r = alpha_t sigma_s / (alpha_s sigma_t) and c = eta sigma_s sqrt(1 - r^2) (DDIM Eq. 12, 16).

    Args:
        eta: 1 is DDPM, 0 is DDIM.
        variance: `posterior` (fixed-small) has c' = c; `fixed_large` has c'^2 = 1 - (alpha_t /
            alpha_s)^2, DDPM's beta_t.
        clip: clamp x0_hat to [-1, 1]. It cuts gradients wherever it binds (DDPM's released
            sampler, ADDT's evaluation).
    """

    eta: float = 1.0
    variance: Literal["posterior", "fixed_large"] = "posterior"
    clip: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ConfigError(
                f"Ancestral eta must be in [0, 1] (0 is DDIM, 1 is DDPM), got {self.eta}"
            )
        if self.variance == "fixed_large" and self.eta != 1:
            raise ConfigError(
                f"Ancestral variance fixed_large belongs to eta 1, got eta {self.eta}"
            )

    @property
    def stream(self) -> Stream | None:
        """DDIM draws nothing."""
        return Stream.REVERSE if self.eta > 0 else None

    def step(self, x: Tensor, t: Tensor, s: Tensor, denoiser: Denoiser, noise: Noise) -> Stepped:
        """See the class."""
        x0 = denoiser(x, t)
        if self.clip:
            x0 = x0.clamp(-1, 1)
        keep_x0, keep_x, spread = self.coefficients(t, s, denoiser)
        x_s = expand(keep_x0, x) * x0 + expand(keep_x, x) * x
        if self.eta > 0:
            x_s = x_s + expand(spread, x) * noise.normal(x, Stream.REVERSE)
        return Stepped(x_s, x0)

    def coefficients(
        self, t: Tensor, s: Tensor, denoiser: Denoiser
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of x0, x_t and z in fp64 `(B,)`; finite at sigma_t = 0, where nothing moves."""
        schedule = denoiser.schedule
        alpha_t, alpha_s = schedule.alpha(t), schedule.alpha(s)
        sigma_t, sigma_s = schedule.sigma(t), schedule.sigma(s)
        shrink = alpha_t / alpha_s
        floor = sigma_t.clamp_min(torch.finfo(sigma_t.dtype).tiny)
        c = self.eta * sigma_s * (1 - (shrink * sigma_s / floor) ** 2).clamp_min(0).sqrt()
        keep_x = (sigma_s**2 - c**2).clamp_min(0).sqrt() / floor
        if self.variance == "fixed_large":
            c = (1 - shrink**2).clamp_min(0).sqrt() * (sigma_s > 0)
        return alpha_s - keep_x * alpha_t, keep_x, c


@dataclass(frozen=True)
class CheckpointedStep(Step):
    """Another step, recomputed in the backward pass: memory stays flat in K for one more forward.

    Keyed noise makes the recomputation exact without saving any generator's state.
    """

    inner: Step

    @property
    def stream(self) -> Stream | None:
        """The inner step's."""
        return self.inner.stream

    def step(self, x: Tensor, t: Tensor, s: Tensor, denoiser: Denoiser, noise: Noise) -> Stepped:
        """The inner step's result, without its activations."""
        result = checkpoint(
            self.inner.step,
            x,
            t,
            s,
            denoiser,
            noise,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return Stepped(*result)
