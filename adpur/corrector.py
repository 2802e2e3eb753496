"""A Langevin corrector around any step."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import NoiseSchedule
from adpur.diffusion.step import Step, Stepped
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.types import expand


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
