"""Images a diffusion model draws from nothing."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.grid import Strided
from adpur.diffusion.reverse import Walk, reverse
from adpur.diffusion.schedule import DiscreteVP, NoiseSchedule
from adpur.diffusion.step import Ancestral
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.types import to_unit


@dataclass(frozen=True)
class Sampler:
    """DDPM's reverse process from pure noise (Ho et al. 2020, Algorithm 2), x0_hat clamped.

    Every schedule visits DDPM's noise levels, on its own times and no higher than it goes.

    Args:
        stride: DDPM steps a network call.
    """

    stride: int = 20

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= DiscreteVP().end:
            raise ConfigError(f"stride of samples must lie in 1..1000, got {self.stride}")

    def check(self, denoiser: Denoiser) -> None:
        """Raise `ConfigError` if the network knows nothing of the noise that samples start from."""
        denoiser.check_time(self._times(denoiser.schedule)[0].item(), "drawing samples")

    @torch.no_grad()
    def draw(self, denoiser: Denoiser, noise: Noise, like: Tensor, rows: int) -> Tensor:
        """One image for each key, about [0, 1], of the dtype of `like`, in calls of `rows` rows."""
        still = like.new_zeros(len(noise.index), *denoiser.shape)
        times = self._times(denoiser.schedule).view(-1, 1).expand(-1, len(still))
        start = denoiser.schedule.diffuse(still, times[0], noise.normal(still, Stream.FORWARD))
        walk = Walk(Ancestral(clip=True), denoiser, rows)
        x, _ = reverse(start, start, times, walk, noise)
        return to_unit(x)

    def _times(self, schedule: NoiseSchedule) -> Tensor:
        grid, ddpm = Strided(self.stride), DiscreteVP()
        t = grid.times(grid.snap(torch.tensor([ddpm.end]), ddpm.end)).flatten()
        return schedule.at(ddpm.sigma(t) / ddpm.alpha(t)).clamp_max(schedule.end)
