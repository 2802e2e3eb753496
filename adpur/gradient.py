"""How the attacker differentiates: from the deployed purifier to the one the attack sees."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from adpur.grid import Borrowed, Grid, Strided
from adpur.models.networks import Networks
from adpur.noise import Noise
from adpur.purify.base import Levels, Purified, Purifier, Tap
from adpur.step import CheckpointedStep, Step


class GradientMode(ABC):
    """A value that maps purifiers to purifiers; attacks know nothing of it."""

    @abstractmethod
    def view(self, purifier: Purifier) -> Purifier:
        """The purifier the attacker differentiates."""


@dataclass(frozen=True)
class Exact(GradientMode):
    """Plain autograd through every step; memory grows with the number of steps."""

    def view(self, purifier: Purifier) -> Purifier:
        """The deployed purifier."""
        return purifier


@dataclass(frozen=True)
class Checkpointed(GradientMode):
    """The exact gradient with each step recomputed: flat memory for one more forward a step."""

    def view(self, purifier: Purifier) -> Purifier:
        """The deployed purifier, each step checkpointed."""
        return purifier.replaced(step=CheckpointedStep)


@dataclass(frozen=True)
class Surrogate(GradientMode):
    """The exact gradient of a coarser reverse process from the same levels (Lee & Kim 2023)."""

    grid: Grid = Strided(5)

    def view(self, purifier: Purifier) -> Purifier:
        """The deployed purifier on another grid."""
        return purifier.replaced(grid=lambda deployed: Borrowed(deployed, self.grid))


@dataclass(frozen=True)
class BPDA(GradientMode):
    """The classifier's gradient at the purified image (Athalye et al. 2018)."""

    def view(self, purifier: Purifier) -> Purifier:
        """The deployed purifier with the identity for its backward pass."""
        return StraightThrough(purifier)


@dataclass(frozen=True)
class StraightThrough(Purifier):
    """Another purifier forward, the identity backward."""

    inner: Purifier

    def check(self, nets: Networks) -> None:
        """The inner purifier's."""
        self.inner.check(nets)

    def levels(self, x: Tensor, nets: Networks, noise: Noise) -> Levels:
        """The inner purifier's."""
        return self.inner.levels(x, nets, noise)

    def steps(self, levels: Levels, nets: Networks) -> Tensor:
        """The inner purifier's."""
        return self.inner.steps(levels, nets)

    def purify(
        self,
        x: Tensor,
        nets: Networks,
        noise: Noise,
        levels: Levels | None = None,
        tap: Tap | None = None,
    ) -> Purified:
        """The inner result, as if x had been moved by a constant."""
        with torch.no_grad():
            purified = self.inner.purify(x, nets, noise, levels, tap)
        image: Tensor = _Straight.apply(x, purified.image)
        return purified._replace(image=image)

    def replaced(
        self,
        step: Callable[[Step], Step] = lambda step: step,
        grid: Callable[[Grid], Grid] = lambda grid: grid,
    ) -> "StraightThrough":
        """With the inner purifier's parts mapped."""
        return replace(self, inner=self.inner.replaced(step, grid))


class _Straight(torch.autograd.Function):
    """Bit-exact where x + (purified - x).detach() would round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, purified: Tensor) -> Tensor:
        return purified.view_as(purified)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
