"""GDMP: the reverse process pulled towards the diffused input (Wang et al. 2022)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
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
        strength = _strength(self.scale, self.budget, t, s, schedule)
        return _towards(x, reference, t, schedule, noise, strength)


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
        border = _border(self.width)
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

        def likeness(x: Tensor, target: Tensor) -> Tensor:
            found = ssim(x, target, sigma=self.width, reduction="none", data_range=2.0)
            assert isinstance(found, Tensor)
            return found

        strength = _strength(self.scale, self.budget, t, s, schedule)
        return _uphill(likeness, x, reference, t, s, schedule, noise, strength)


@dataclass(frozen=True)
class ReleasedMSE(Guidance):
    """`MSE` as GDMP's code has it.

    Args:
        scale, budget: see `MSE`.
        batch: the code's mean runs over a whole batch, so that an image's pull is divided by the
            number of its batch mates: this many, however many are at hand here. 1 is the image
            alone; its CIFAR-10 configuration has 100.
        large: Sigma_t of the shift is DDPM's fixed-large beta_t, as with its CIFAR-10 network;
            False is the posterior's.
    """

    scale: float = 6e4
    budget: float = 8.0
    batch: int = 100
    large: bool = True

    def __post_init__(self) -> None:
        _check(self.scale, self.budget, self.batch)

    def check(self, shape: tuple[int, ...]) -> None:
        """Any can."""

    def shift(
        self, x: Tensor, reference: Tensor, t: Tensor, s: Tensor, schedule: NoiseSchedule,
        noise: Noise,
    ) -> Tensor:  # fmt: skip
        """In closed form."""
        strength = _strength(self.scale, self.budget, t, s, schedule, self.large) / self.batch
        return _towards(x, reference, t, schedule, noise, strength)


@dataclass(frozen=True)
class ReleasedSSIM(Guidance):
    """`SSIM` as GDMP's code has it: windows over the edge see zeros, and every pixel counts.

    Its package's constants are of range 1, on images in [-1, 1], whose range is 2; the window is
    11 x 11 of standard deviation 1.5.

    Args:
        scale, budget: see `SSIM`.
        batch, large: see `ReleasedMSE`.
    """

    scale: float = 7e4
    budget: float = 8.0
    batch: int = 100
    large: bool = True

    def __post_init__(self) -> None:
        _check(self.scale, self.budget, self.batch)

    def check(self, shape: tuple[int, ...]) -> None:
        """Any can: zero padding drops no border."""

    def shift(
        self, x: Tensor, reference: Tensor, t: Tensor, s: Tensor, schedule: NoiseSchedule,
        noise: Noise,
    ) -> Tensor:  # fmt: skip
        """By autograd, whose graph is kept where the step itself is differentiated."""
        strength = _strength(self.scale, self.budget, t, s, schedule, self.large) / self.batch
        return _uphill(padded_ssim, x, reference, t, s, schedule, noise, strength)


def _towards(
    x: Tensor, reference: Tensor, t: Tensor, schedule: NoiseSchedule, noise: Noise, strength: Tensor
) -> Tensor:
    """`strength` times the gradient of -mean (x_t - ref_t)^2, the mean over an image's pixels."""
    target = schedule.diffuse(reference, t, noise.normal(x, Stream.GUIDANCE))
    return expand(2 * strength / x[0].numel(), x) * (target - x)


def _uphill(
    likeness: Callable[[Tensor, Tensor], Tensor], x: Tensor, reference: Tensor, t: Tensor,
    s: Tensor, schedule: NoiseSchedule, noise: Noise, strength: Tensor,
) -> Tensor:  # fmt: skip
    """`strength` times the gradient of each image's `likeness` to the diffused reference."""
    differentiated = torch.is_grad_enabled() and any(v.requires_grad for v in (x, reference, t, s))
    with torch.enable_grad():
        target = schedule.diffuse(reference, t, noise.normal(x, Stream.GUIDANCE))
        x = x if x.requires_grad else x.detach().requires_grad_()
        (pull,) = torch.autograd.grad(likeness(x, target).sum(), x, create_graph=differentiated)
    return expand(strength, x) * pull


def padded_ssim(x: Tensor, y: Tensor, width: float = 1.5, data_range: float = 1.0) -> Tensor:
    """SSIM `(B,)` of images `(B, C, H, W)`, where windows over the edge see zeros beyond it.

    Means, variances and the covariance are Gaussian-weighted sums over a window around each pixel
    (Wang et al. 2004, Eq. 13); the mean over all pixels and channels is the image's.
    """
    border = _border(width)
    ramp = torch.arange(-border, border + 1, dtype=x.dtype, device=x.device)
    weight = (-0.5 * (ramp / width) ** 2).exp()
    weight = weight / weight.sum()
    window = weight.view(1, 1, -1, 1) * weight.view(1, 1, 1, -1)
    window = window.expand(x.shape[1], 1, -1, -1)

    def local(v: Tensor) -> Tensor:
        return F.conv2d(v, window, padding=border, groups=v.shape[1])

    mean_x, mean_y = local(x), local(y)
    var_x, var_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    cov = local(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    top = (2 * mean_x * mean_y + c1) * (2 * cov + c2)
    return (top / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).flatten(1).mean(1)


def _border(width: float) -> int:
    """Pixels from the middle of a Gaussian window of standard deviation `width` to its edge."""
    return int(3.5 * width + 0.5)


def _strength(
    scale: float, budget: float, t: Tensor, s: Tensor, schedule: NoiseSchedule, large: bool = False
) -> Tensor:
    """Sigma_t s_t, fp64 `(B,)`; 0 where nothing moves."""
    ratio = schedule.sigma(t) / schedule.alpha(t)
    variance = _large(t, s, schedule) if large else schedule.posterior_variance(t, s)
    return scale * 3 * 255 / (2 * budget) * ratio * variance


def _large(t: Tensor, s: Tensor, schedule: NoiseSchedule) -> Tensor:
    """DDPM's fixed-large variance, fp64 `(B,)`: beta_t, but for the step to 0.

    Its released table, whose logarithm is taken, has the second step's posterior variance there;
    so here, of a step as long that ends where this one sets out.
    """
    shrink = schedule.alpha(t) / schedule.alpha(s)
    beta = schedule.sigma(t) ** 2 - (shrink * schedule.sigma(s)) ** 2
    last = schedule.posterior_variance((t + t - s).clamp_max(schedule.end), t)
    return torch.where(t > s, torch.where(s > 0, beta, last), 0.0)


def _check(scale: float, budget: float, batch: int = 1) -> None:
    if not (scale >= 0 and budget > 0 and batch >= 1):
        raise ConfigError(
            f"guidance needs scale >= 0, budget > 0 and batch >= 1, got {scale}, {budget} and "
            f"{batch}"
        )
