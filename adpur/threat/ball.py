"""Threat models as values: what a perturbation may be, and how to move inside."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.keyed.noise import Noise, Stream
from adpur.threat.patches import Bumps, Patches, Signs
from adpur.types import expand


class Admitted(NamedTuple):
    """Images `(B, C, H, W)` a threat allows, the size `(B,)` of what was done to each, in the unit
    of eps, and by how much `(B,)` those they stand for were outside; both fp64.
    """

    image: Tensor
    size: Tensor
    excess: Tensor


class Threat(ABC):
    """What may be done to an image: sets around it that grow with eps, within the range [0, 1]."""

    @abstractmethod
    def admitted(self, image: Tensor, origin: Tensor, eps: float) -> Admitted:
        """What is judged in place of `image`: it, or what is near it in the set of `origin`."""

    @abstractmethod
    def ascent(self, x: Tensor, grad: Tensor, eps: float) -> Tensor:
        """One step of steepest ascent, all of eps long, from `x` along the image gradient."""

    @abstractmethod
    def reach(self, radius: float, pixels: int) -> float | None:
        """The eps whose set holds the Linf ball of this radius; None if there is none."""


class Norm(Threat):
    """A family of balls around an image, always cut with the image range [0, 1]."""

    def admitted(self, image: Tensor, origin: Tensor, eps: float) -> Admitted:
        """The projection; outside by the norm beyond eps, or by the values beyond the range."""
        found = self.project(image, origin, eps)
        beyond = (self.size(image - origin) - eps).clamp_min(0)
        past = (image - image.clamp(0, 1)).abs().flatten(1).amax(1).double()
        return Admitted(found, self.size(found - origin), beyond.maximum(past))

    def ascent(self, x: Tensor, grad: Tensor, eps: float) -> Tensor:
        """FGSM (Goodfellow et al. 2015), in this norm."""
        return self.project(x + eps * self.direction(grad), x, eps)

    @abstractmethod
    def size(self, delta: Tensor) -> Tensor:
        """The norm of each perturbation `(B,)`, fp64."""

    @abstractmethod
    def project(self, x: Tensor, origin: Tensor, eps: float) -> Tensor:
        """The nearest point to `x` (Linf), or one on its ray (L2), within eps of `origin`."""

    @abstractmethod
    def direction(self, grad: Tensor) -> Tensor:
        """Steepest ascent of unit norm; zero where the gradient is zero."""

    @abstractmethod
    def start(self, origin: Tensor, eps: float, noise: Noise) -> Tensor:
        """A uniform point of the ball."""

    @abstractmethod
    def moment(self, grad: Tensor) -> Tensor:
        """What an adaptive step divides by, squared: of every pixel (Linf), or of the image."""

    @abstractmethod
    def patches(self) -> Patches:
        """What the Square attack paints in this ball."""


@dataclass(frozen=True)
class Linf(Norm):
    """max_i |delta_i| <= eps."""

    def size(self, delta: Tensor) -> Tensor:
        """Largest absolute change."""
        return delta.double().abs().flatten(1).amax(dim=1)

    def reach(self, radius: float, pixels: int) -> float:
        """Itself."""
        return radius

    def project(self, x: Tensor, origin: Tensor, eps: float) -> Tensor:
        """Clamp to the cube, then to the range."""
        return torch.clamp(x, origin - eps, origin + eps).clamp(0, 1)

    def direction(self, grad: Tensor) -> Tensor:
        """The sign."""
        return grad.sign()

    def start(self, origin: Tensor, eps: float, noise: Noise) -> Tensor:
        """Uniform in the cube."""
        moved = origin + eps * (2 * noise.uniform(origin, Stream.ATTACK) - 1)
        return self.project(moved, origin, eps)

    def moment(self, grad: Tensor) -> Tensor:
        """g_i^2, as in Adam."""
        return grad * grad

    def patches(self) -> Patches:
        """Stripes and squares of +-eps."""
        return Signs()


@dataclass(frozen=True)
class L2(Norm):
    """sqrt(sum_i delta_i^2) <= eps."""

    def size(self, delta: Tensor) -> Tensor:
        """Euclidean length; in fp64, so that no bit depends on how the sum was split."""
        return delta.double().flatten(1).norm(dim=1)

    def reach(self, radius: float, pixels: int) -> float:
        """The distance of the cube's corners."""
        return radius * math.sqrt(pixels)

    def project(self, x: Tensor, origin: Tensor, eps: float) -> Tensor:
        """Scale back to the sphere, then clamp, which only brings x nearer to its origin."""
        delta = x - origin
        scale = (eps / self.size(delta).clamp_min(1e-30)).clamp(max=1)
        return (origin + delta * expand(scale, delta)).clamp(0, 1)

    def direction(self, grad: Tensor) -> Tensor:
        """The normalised gradient, not its sign."""
        return grad / expand(self.size(grad).clamp_min(1e-30), grad)

    def start(self, origin: Tensor, eps: float, noise: Noise) -> Tensor:
        """A uniform direction, at a radius of eps u^(1/D)."""
        unit = self.direction(noise.normal(origin, Stream.ATTACK))
        share = noise.fold(step=1).uniform(origin.flatten(1)[:, 0], Stream.ATTACK)
        # exp and log, not a power, whose last bit depends on a row's place in the batch
        radius = eps * (share.log() / origin[0].numel()).exp()
        return self.project(origin + unit * expand(radius, origin), origin, eps)

    def moment(self, grad: Tensor) -> Tensor:
        """The image's mean g_i^2: Adam's own would turn a gradient towards its signs."""
        mean = self.size(grad).square() / grad[0].numel()
        return expand(mean, grad).expand_as(grad)

    def patches(self) -> Patches:
        """Bumps that carry the whole radius."""
        return Bumps()
