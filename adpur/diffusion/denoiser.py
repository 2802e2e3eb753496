"""The one contract every diffusion network is brought to."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from adpur.diffusion.schedule import NoiseSchedule
from adpur.errors import ConfigError
from adpur.keyed.rows import count_call
from adpur.types import expand


class Denoiser(nn.Module, ABC):
    """D(x_t, t) -> x0_hat, the network's estimate of E[x_0 | x_t].

    Attributes:
        schedule: what t means.
        shape: (C, H, W) of the images it was trained on.
        max_time: the largest t it was trained on; the schedule's end, unless a fit or a weights
            folder says otherwise. It knows nothing of larger times.
    """

    def __init__(self, schedule: NoiseSchedule, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.schedule = schedule
        self.shape = shape
        self.max_time: float = schedule.end

    @abstractmethod
    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x0_hat `(B, C, H, W)` from `x_t` in [-1, 1] plus noise, and t `(B,)`."""

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Call `denoise`, counting."""
        count_call()
        return self.denoise(x_t, t)

    def score(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The score of the diffused density at t > 0."""
        return self.schedule.score(x_t, self(x_t, t), t)

    def eps(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise it sees, eps_hat = (x_t - alpha_t x0_hat) / sigma_t, at t > 0."""
        return self.schedule.noise_in(x_t, self(x_t, t), t)

    def training_time(self, share: Tensor) -> Tensor:
        """The time `(B,)` below which a share in (0, 1) of its own training times fall."""
        limited = self.max_time < self.schedule.end
        return self.schedule.quantile(share, self.max_time if limited else None)

    def check_time(self, t: float, asks: str) -> None:
        """Raise `ConfigError` if `t` is beyond what the network was trained on.

        Args:
            t: the largest time that will be asked for, in this denoiser's schedule.
            asks: who asks, as the subject of the message.
        """
        if t > self.max_time * (1 + 1e-9):  # a time that went through another schedule is rounded
            raise ConfigError(
                f"{asks} asks the diffusion model at t = {t:g}, and it was trained on times up to "
                f"{self.max_time:g} only; lower the time, or take weights trained on all of them"
            )

    def on(self, schedule: NoiseSchedule | None) -> "Denoiser":
        """The same network at the times of another schedule; itself for its own or for None."""
        same = schedule is None or schedule is self.schedule or schedule == self.schedule
        return self if same or schedule is None else Reparametrised(self, schedule)


class Reparametrised(Denoiser):
    """A denoiser on another schedule: equal noise-to-signal ratios, x rescaled to match.

    A VP network at noise level sigma is abar = 1 / (1 + sigma^2) (ScoreOpt, EDM section C.1.1).
    Discrete networks are asked at real labels, never rounded: t stays differentiable.
    """

    def __init__(self, inner: Denoiser, schedule: NoiseSchedule) -> None:
        super().__init__(schedule, inner.shape)
        self.inner = inner
        if inner.max_time < inner.schedule.end:
            t = torch.tensor([inner.max_time], dtype=torch.float64, device="cpu")
            ratio = inner.schedule.sigma(t) / inner.schedule.alpha(t)
            self.max_time = min(schedule.end, schedule.at(ratio).item())

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The inner x0_hat at the inner time with this ratio."""
        alpha = self.schedule.alpha(t)
        there = self.inner.schedule
        inner_t = there.at(self.schedule.sigma(t) / alpha)
        return self.inner.denoise(expand(there.alpha(inner_t) / alpha, x_t) * x_t, inner_t)
