"""One step of the reverse process, from t to s <= t."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import VE, ContinuousSchedule, NoiseSchedule
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.types import expand, root


class Stepped(NamedTuple):
    """x_s and the x0_hat it was made from, both `(B, C, H, W)`."""

    x: Tensor
    x0: Tensor


class Step(ABC):
    """A rule for x_s given x_t; `noise.step` counts the steps that remain, never those done.

    Times are `(B,)` on the host. Values and gradients stay finite at t = s = 0, where a row may
    wait; what a step makes of a waiting row is dropped.
    """

    @property
    @abstractmethod
    def stream(self) -> Stream | None:
        """The stream it draws from at every step, which a loop may draw ahead; None if none."""

    @abstractmethod
    def check(self, schedule: NoiseSchedule) -> None:
        """Raise `ConfigError` if the step needs another schedule."""

    @abstractmethod
    def calls(self, s: Tensor) -> Tensor:
        """How many network calls a row's step to `s` uses, int64 `(B,)`."""

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
        variance: `posterior` (fixed-small) has c' = c; `fixed_large` has c'^2 = sigma_t^2 -
            (alpha_t sigma_s / alpha_s)^2, DDPM's beta_t.
        clip: clamp x0_hat to [-1, 1]. It cuts gradients wherever it binds (DDPM's released
            sampler, ADDT's evaluation).
        rederive: with `clip`, take the direction from the clamped x0_hat; False keeps the
            network's own eps_hat (diffusers' DDIM as ADDT released it).
    """

    eta: float = 1.0
    variance: Literal["posterior", "fixed_large"] = "posterior"
    clip: bool = False
    rederive: bool = True

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

    def check(self, schedule: NoiseSchedule) -> None:
        """Any schedule will do."""

    def calls(self, s: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(s, dtype=torch.int64)

    def step(self, x: Tensor, t: Tensor, s: Tensor, denoiser: Denoiser, noise: Noise) -> Stepped:
        """See the class."""
        x0 = own = denoiser(x, t)
        if self.clip:
            x0 = x0.clamp(-1, 1)
        schedule = denoiser.schedule
        spread, direction = self.coefficients(t, s, schedule)
        turn = direction * schedule.alpha(t)
        x_s = expand(schedule.alpha(s) - turn, x) * x0 + expand(direction, x) * x
        if not self.rederive:
            x_s = x_s + expand(turn, x) * (x0 - own)
        if self.eta > 0:
            x_s = x_s + expand(spread, x) * noise.normal(x, Stream.REVERSE)
        return Stepped(x_s, x0)

    def coefficients(self, t: Tensor, s: Tensor, schedule: NoiseSchedule) -> tuple[Tensor, Tensor]:
        """Factors of z and of x_t - alpha_t x0, fp64 `(B,)`; finite at sigma_t = 0."""
        sigma_s = schedule.sigma(s)
        c = self.eta * root(schedule.posterior_variance(t, s))
        direction = root(sigma_s**2 - c**2) / schedule.floored(t)
        if self.variance == "fixed_large":
            shrink = schedule.alpha(t) / schedule.alpha(s)
            c = root(schedule.sigma(t) ** 2 - (shrink * sigma_s) ** 2) * (sigma_s > 0)
        return c, direction


@dataclass(frozen=True)
class EulerMaruyama(Step):
    """The reverse VP- or VE-SDE (eta 1) or its probability-flow ODE (eta 0), by Euler's rule.

    x_s = x_t + (t - s) (-f x_t + (1 + eta^2) / 2 g^2 score) + eta g sqrt(t - s) z (Song et al.
    2021, Eq. 6 and 13). The last step adds noise too, unless it ends at 0: DiffPure ends at 1e-5.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise ConfigError(
                f"EulerMaruyama eta must be in [0, 1] (0 is the ODE, 1 the SDE), got {self.eta}"
            )

    @property
    def stream(self) -> Stream | None:
        """The ODE draws nothing."""
        return Stream.REVERSE if self.eta > 0 else None

    def check(self, schedule: NoiseSchedule) -> None:
        """A schedule with an SDE."""
        if not isinstance(schedule, ContinuousSchedule):
            raise ConfigError(
                f"EulerMaruyama needs a continuous schedule, got {type(schedule).__name__}; "
                "write schedule: {class_path: adpur.LinearVP} in the row"
            )

    def calls(self, s: Tensor) -> Tensor:
        """One."""
        return torch.ones_like(s, dtype=torch.int64)

    def step(self, x: Tensor, t: Tensor, s: Tensor, denoiser: Denoiser, noise: Noise) -> Stepped:
        """See the class."""
        schedule = denoiser.schedule
        assert isinstance(schedule, ContinuousSchedule)
        x0 = denoiser(x, t)
        span, spread = t - s, schedule.spread(t)
        push = 0.5 * (1 + self.eta**2) * spread * span
        x_s = (
            x - expand(schedule.drift(t) * span, x) * x + expand(push, x) * schedule.score(x, x0, t)
        )
        if self.eta > 0:
            scale = self.eta * root(spread * span) * (schedule.sigma(s) > 0)
            x_s = x_s + expand(scale, x) * noise.normal(x, Stream.REVERSE)
        return Stepped(x_s, x0)


@dataclass(frozen=True)
class Heun(Step):
    """EDM's second-order step on `VE`, with churn (Karras et al. 2022, Algorithms 1 and 2).

    Args:
        gamma: noise is raised to t (1 + gamma) first; min(S_churn / steps, sqrt(2) - 1). 0 is
            the ODE.
        low, high: S_min and S_max, the times between which noise is raised.
        inflate: S_noise.
    """

    gamma: float = 0.0
    low: float = 0.0
    high: float = float("inf")
    inflate: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 2**0.5 - 1:
            raise ConfigError(f"Heun gamma must be in [0, sqrt(2) - 1], got {self.gamma}")
        if not (0 <= self.low < self.high and self.inflate > 0):
            raise ConfigError(
                "Heun needs 0 <= low < high (S_min, S_max) and inflate > 0 (S_noise), got "
                f"{self.low}, {self.high}, {self.inflate}"
            )

    @property
    def stream(self) -> Stream | None:
        """The ODE draws nothing."""
        return Stream.CHURN if self.gamma > 0 else None

    def check(self, schedule: NoiseSchedule) -> None:
        """Times are sigmas."""
        if not isinstance(schedule, VE):
            raise ConfigError(
                f"Heun steps through sigma, got a {type(schedule).__name__} schedule; "
                "write schedule: {class_path: adpur.VE} in the row"
            )

    def calls(self, s: Tensor) -> Tensor:
        """Two, and one to reach 0."""
        return 1 + (s > 0).long()

    def step(self, x: Tensor, t: Tensor, s: Tensor, denoiser: Denoiser, noise: Noise) -> Stepped:
        """See the class."""
        raised = t * (1 + self.gamma * ((t >= self.low) & (t <= self.high)).to(t))
        if self.gamma > 0:
            extra = self.inflate * root(raised**2 - t**2)
            x = x + expand(extra, x) * noise.normal(x, Stream.CHURN)
        x0 = denoiser(x, raised)
        slope = (x - x0) / expand(denoiser.schedule.floored(raised), x)
        span = expand(s - raised, x)
        x_s = x + span * slope
        again = s > 0
        if again.any():
            there = torch.where(again, s, raised)  # rows that reached 0 drop this call
            second = (x_s - denoiser(x_s, there)) / expand(denoiser.schedule.floored(there), x)
            x_s = torch.where(expand(again, x).bool(), x + 0.5 * span * (slope + second), x_s)
        return Stepped(x_s, x0)


@dataclass(frozen=True)
class Corrected(Step):
    """A Langevin correction at t before another step (Song et al. 2021, Algorithms 4 and 5).

    x <- x + e score(x, t) + sqrt(2 e) z, with e = 2 a (snr |z| / |score|)^2 and a = (alpha_t /
    alpha_s)^2, which is 1 - beta_t at stride 1. The norms are each row's own, where score_sde
    takes the batch's mean.
    """

    inner: Step
    snr: float = 0.16

    def __post_init__(self) -> None:
        if isinstance(self.inner, Corrected):
            raise ConfigError("Corrected corrects once; a second one would draw the same noise")
        if not 0 < self.snr < float("inf"):
            raise ConfigError(f"Corrected snr must be positive, got {self.snr}")

    @property
    def stream(self) -> Stream | None:
        """The inner step's."""
        return self.inner.stream

    def check(self, schedule: NoiseSchedule) -> None:
        """What the inner step needs."""
        self.inner.check(schedule)

    def calls(self, s: Tensor) -> Tensor:
        """One more."""
        return 1 + self.inner.calls(s)

    def step(self, x: Tensor, t: Tensor, s: Tensor, denoiser: Denoiser, noise: Noise) -> Stepped:
        """See the class."""
        score = denoiser.score(x, t)
        z = noise.normal(x, Stream.CORRECTOR)
        size = score.flatten(1).norm(dim=1)
        ratio = z.flatten(1).norm(dim=1) / torch.where(size > 0, size, 1.0)
        shrink = denoiser.schedule.alpha(t) / denoiser.schedule.alpha(s)
        root = expand(shrink, x) * expand(self.snr * ratio, x)  # sqrt(e / 2)
        return self.inner.step(x + 2 * root**2 * score + 2 * root * z, t, s, denoiser, noise)
