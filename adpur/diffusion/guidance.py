"""GDMP: the reverse process pulled towards the diffused input (Wang et al. 2022)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from adpur.diffusion.schedule import NoiseSchedule
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.types import expand


class Guidance(ABC):
    """The shift of a reverse step's mean; differentiable in the reference, to second order."""

    @abstractmethod
    def check(self, shape: tuple[int, ...]) -> None:
        """Raise `ConfigError` if images `(C, H, W)` cannot be compared."""

    @abstractmethod
    def shift(
        self, x: Tensor, reference: Tensor, t: Tensor, s: Tensor, schedule: NoiseSchedule,
        noise: Noise,
    ) -> Tensor:  # fmt: skip
        """What x_s moves by, from x_t and the undiffused signed `reference` `(B, C, H, W)`."""


@dataclass(frozen=True)
class MSE(Guidance):
    """Sigma_t s_t grad_{x_t} (-mean (x_t - ref_t)^2), ref_t the reference diffused anew to t.

    s_t = `scale` 3 * 255 / (2 `budget`) sigma_t / alpha_t and Sigma_t the posterior variance
    (GDMP Eq. 8 and 9); `budget` is the perturbation it expects, in grey levels. The mean runs over
    an image's own pixels, 3072 in the published `scale`: 8x8 images want 1250. Where 2 Sigma_t s_t
    / pixels exceeds 2, the pull overshoots and the process diverges.
    """

    scale: float = 6e4
    budget: float = 8.0

    def __post_init__(self) -> None:
        _check(self.scale, self.budget)

    def check(self, shape: tuple[int, ...]) -> None:
        """Any can."""

    def shift(
        self, x: Tensor, reference: Tensor, t: Tensor, s: Tensor, schedule: NoiseSchedule,
        noise: Noise,
    ) -> Tensor:  # fmt: skip
        """In closed form."""
        target = schedule.diffuse(reference, t, noise.normal(x, Stream.GUIDANCE))
        strength = _strength(self.scale, self.budget, t, s, schedule)
        return expand(2 * strength / x[0].numel(), x) * (target - x)


@dataclass(frozen=True)
class SSIM(Guidance):
    """Sigma_t s_t grad_{x_t} SSIM(x_t, ref_t), with the same s_t as `MSE`.

    Args:
        scale, budget: see `MSE`; 7e4 and 8 for CIFAR-10, 1000 and 4 for ImageNet.
        width: standard deviation of SSIM's Gaussian window, in pixels.
    """

    scale: float = 7e4
    budget: float = 8.0
    width: float = 1.5

    def __post_init__(self) -> None:
        _check(self.scale, self.budget)

    def check(self, shape: tuple[int, ...]) -> None:
        """The window and the border SSIM drops must leave pixels."""
        border = int(3.5 * self.width + 0.5)
        if min(shape[1:]) <= 2 * border:
            raise ConfigError(
                f"SSIM of width {self.width} drops {border} pixels on each side of {shape[1:]} "
                "images; write a smaller width"
            )

    def shift(
        self, x: Tensor, reference: Tensor, t: Tensor, s: Tensor, schedule: NoiseSchedule,
        noise: Noise,
    ) -> Tensor:  # fmt: skip
        """By autograd, whose graph is kept where the step itself is differentiated."""
        inputs = (x, reference, t, s)
        differentiated = torch.is_grad_enabled() and any(v.requires_grad for v in inputs)
        with torch.enable_grad():
            target = schedule.diffuse(reference, t, noise.normal(x, Stream.GUIDANCE))
            x = x if x.requires_grad else x.detach().requires_grad_()
            likeness = ssim(x, target, sigma=self.width, reduction="none", data_range=2.0)
            assert isinstance(likeness, Tensor)
            (pull,) = torch.autograd.grad(likeness.sum(), x, create_graph=differentiated)
        return expand(_strength(self.scale, self.budget, t, s, schedule), x) * pull


def _strength(scale: float, budget: float, t: Tensor, s: Tensor, schedule: NoiseSchedule) -> Tensor:
    """Sigma_t s_t, fp64 `(B,)`; 0 where nothing moves."""
    ratio = schedule.sigma(t) / schedule.alpha(t)
    return scale * 3 * 255 / (2 * budget) * ratio * schedule.posterior_variance(t, s)


def _check(scale: float, budget: float) -> None:
    if not (scale >= 0 and budget > 0):
        raise ConfigError(f"guidance needs scale >= 0 and budget > 0, got {scale} and {budget}")
