"""Closed-form problems: no training, no weights, exact answers."""

import torch
from torch import Tensor, nn

from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import DiscreteVP, NoiseSchedule
from adpur.models.networks import Networks
from adpur.types import expand

SHAPE = (1, 4, 4)


class GaussianDenoiser(Denoiser):
    """E[x_0 | x_t] when x_0 ~ N(mean, var I)."""

    def __init__(
        self, mean: float = 0.3, var: float = 0.25, schedule: NoiseSchedule | None = None
    ) -> None:
        super().__init__(schedule or DiscreteVP(), SHAPE)
        self.mean, self.var = mean, var

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = (expand(f(t), x_t) for f in (self.schedule.alpha, self.schedule.sigma))
        top = self.var * alpha * x_t + sigma**2 * self.mean
        return top / (self.var * alpha**2 + sigma**2)


class WavyDenoiser(GaussianDenoiser):
    """A Gaussian denoiser bent by a smooth nonlinearity, so that gradients differ everywhere."""

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return super().denoise(x_t, t) + 0.1 * torch.sin(3 * x_t) * expand(t.double() / 1000, x_t)


class LinearClassifier(nn.Module):
    """Logits W x with fixed, dense weights; `shape` is what networks look for."""

    def __init__(self, classes: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        gen = torch.Generator().manual_seed(11)
        weight = torch.randn(classes, SHAPE[1] * SHAPE[2], generator=gen, dtype=torch.float64)
        self.weight = nn.Parameter(scale * weight)
        self.shape = SHAPE

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.to(x).T


def networks(denoiser: Denoiser | None = None) -> Networks:
    return Networks(LinearClassifier(), denoiser or WavyDenoiser())


def images(count: int, dtype: torch.dtype = torch.float64, seed: int = 5) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return torch.rand(count, *SHAPE, generator=gen, dtype=torch.float64).to(dtype)
