"""Classifiers with closed forms, the additive noise before them, and the step that beats them."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from adpur.attacks.attack import Attack
from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import VE
from adpur.threat.ball import L2, Norm
from adpur.threat.losses import Margin
from adpur.threat.oracle import Oracle

CENTRE = 0.5
"""x_0, a constant image."""


@dataclass(frozen=True)
class Newton(Attack):
    """x plus its mean gradient over `eot` draws: the maximum of -|P(x) - c|^2 / 2 in one step."""

    eps: float
    norm: Norm = L2()
    eot: int = 1

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        _, grad = replace(oracle, loss=Margin()).value_and_grad(x, 0, self.eot)
        return self.norm.project(x + grad, x, self.eps)


class Unmoved(Denoiser):
    """D(x_t, t) = x_t: what a purifier diffuses stays diffused, which is additive noise."""

    def __init__(self, n: int) -> None:
        super().__init__(VE(), (1, 1, n))

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x_t."""
        return x_t


class Ball(nn.Module):
    """Wrong within `radius` of the constant image `centre`: margin (r^2 - |x - c|^2) / 2."""

    def __init__(self, centre: float, radius: float) -> None:
        super().__init__()
        self.centre, self.radius = centre, radius

    def fingerprinted(self) -> dict[str, float]:
        """See `adpur.models.checkpoints.fingerprint`."""
        return {"centre": self.centre, "radius": self.radius}

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, 2)`."""
        return _logits((self.radius**2 - (x - self.centre).square().flatten(1).sum(1)) / 2)


class HalfSpace(nn.Module):
    """Wrong where the mean direction exceeds `depth`: margin w . (x - x_0) - depth, |w| = 1."""

    def __init__(self, n: int, depth: float) -> None:
        super().__init__()
        self.scale, self.depth = 1 / math.sqrt(n), depth

    def fingerprinted(self) -> dict[str, float]:
        """See `adpur.models.checkpoints.fingerprint`."""
        return {"scale": self.scale, "depth": self.depth}

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, 2)`."""
        return _logits((x - CENTRE).flatten(1).sum(1) * self.scale - self.depth)


def _logits(margin: Tensor) -> Tensor:
    return torch.stack((torch.zeros_like(margin), margin), 1)
