"""What the Square attack paints (Andriushchenko et al. 2020, sections 3.3 and 3.4)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.keyed.noise import Noise, Stream
from adpur.types import expand, where


class Patches(ABC):
    """Random moves inside a ball; the result is projected by others.

    Images need not be square, each has its own windows, and all randomness is keyed.
    """

    @abstractmethod
    def start(self, origin: Tensor, eps: float, noise: Noise) -> Tensor:
        """Where the search begins, near `origin` `(B, C, H, W)`."""

    @abstractmethod
    def move(self, found: Tensor, origin: Tensor, eps: float, side: int, noise: Noise) -> Tensor:
        """`found` with something else in a window of `side` pixels."""


class Window(NamedTuple):
    """Indices of one `side` x `side` window in each image: `v[window]` is `(B, C, side, side)`."""

    row: Tensor
    channel: Tensor
    y: Tensor
    x: Tensor


@dataclass(frozen=True)
class Signs(Patches):
    """Linf: columns of +-eps, then squares of +-eps, one sign a channel (section 3.3)."""

    def start(self, origin: Tensor, eps: float, noise: Noise) -> Tensor:
        """Vertical stripes one pixel wide."""
        return origin + eps * _signs(origin[:, :, :1], noise)

    def move(self, found: Tensor, origin: Tensor, eps: float, side: int, noise: Noise) -> Tensor:
        """A square of new signs; of signs that would change nothing, their negation."""
        at = _window(found, side, noise.fold(step=1))
        change = eps * _signs(found[:, :, :1, :1], noise)
        painted = (origin[at] + change).clamp(0, 1)
        same = (painted == found[at]).flatten(1).all(1)
        other = (origin[at] - change).clamp(0, 1)
        moved = found.clone()
        moved[at] = where(same, other, painted)
        return moved


@dataclass(frozen=True)
class Bumps(Patches):
    """L2: bumps of two signs, which take up the radius of another window (section 3.4)."""

    def start(self, origin: Tensor, eps: float, noise: Noise) -> Tensor:
        """Five by five bumps or more, scaled to the sphere."""
        height, width = origin.shape[2:]
        side = max(1, min(height, width) // 5)
        down, across = height // side, width // side
        delta = torch.zeros_like(origin)
        tiled = _bumps(side).to(origin).repeat(down, across)
        signs = _signs(origin[:, :, :down, :across], noise)
        signs = signs.repeat_interleave(side, 2).repeat_interleave(side, 3)
        delta[:, :, : down * side, : across * side] = tiled * signs
        return origin + eps * delta / expand(_norm(delta, (1, 2, 3)), delta)

    def move(self, found: Tensor, origin: Tensor, eps: float, side: int, noise: Noise) -> Tensor:
        """Empty one window into another, with whatever radius clipping had left unused."""
        delta = found - origin
        side = max(side, min(3, *found.shape[2:]))
        into, out = (_window(found, side, noise.fold(step=step)) for step in (1, 2))
        rest = delta.clone()
        rest[into], rest[out] = 0, 0
        unused = (eps**2 - _norm(delta, (1, 2, 3)).square()).clamp_min(0) / delta.shape[1]
        held = (delta.double().square() - rest.double().square()).sum((2, 3))
        radius = (held + unused.view(-1, 1)).sqrt()
        turned = noise.fold(step=3).uniform(found[:, 0, 0, 0], Stream.ATTACK) < 0.5
        bumps = torch.where(expand(turned, found).bool(), _bumps(side), _bumps(side).T).to(found)
        old = delta[into]
        new = bumps * _signs(found[:, :, :1, :1], noise) + old / _per_channel(_norm(old), old)
        rest[into] = new * _per_channel(radius / _norm(new), new)
        return origin + rest


def _window(like: Tensor, side: int, noise: Noise) -> Window:
    """A uniform place in every image; `side` must fit."""
    count, channels, height, width = like.shape
    u = noise.uniform(like.new_empty(count, 2, dtype=torch.float64), Stream.ATTACK)
    room = u.new_tensor([height - side + 1, width - side + 1])
    corner = (u * room).long()
    along = torch.arange(side, device=like.device)
    return Window(
        torch.arange(count, device=like.device).view(-1, 1, 1, 1),
        torch.arange(channels, device=like.device).view(1, -1, 1, 1),
        (corner[:, :1] + along).view(count, 1, side, 1),
        (corner[:, 1:] + along).view(count, 1, 1, side),
    )


def _signs(like: Tensor, noise: Noise) -> Tensor:
    """+-1 of the shape of `like`."""
    return torch.where(noise.uniform(like, Stream.ATTACK) < 0.5, -1.0, 1.0).to(like)


def _bumps(side: int) -> Tensor:
    """Two pyramids side by side, of opposite signs and unit L2 norm together, `(side, side)`."""
    half = side // 2
    both = torch.cat((_pyramid(side, half), -_pyramid(side, side - half)), 1)
    return both / both.norm()


def _pyramid(height: int, width: int) -> Tensor:
    """Rectangles one inside the other, the k-th from outside adding 1 / (n + 1 - k)^2."""
    n = height // 2
    down, across = (torch.arange(length).sub(length // 2).abs() for length in (height, width))
    depth = n - torch.maximum(down.view(-1, 1), across.view(1, -1))
    return (1 / (n + 1 - torch.arange(n + 1).double()).square()).cumsum(0)[depth]


def _norm(v: Tensor, over: tuple[int, ...] = (2, 3)) -> Tensor:
    """In fp64, so that no bit depends on how the sum was split; never quite 0."""
    return v.double().square().sum(over).sqrt().clamp_min(1e-30)


def _per_channel(v: Tensor, like: Tensor) -> Tensor:
    return v.to(like).view(*v.shape, 1, 1)
