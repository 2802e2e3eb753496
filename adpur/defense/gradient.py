"""How the attacker differentiates: from the deployed purifier to the one the attack sees."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from adpur.diffusion.grid import Grid, Inclusive, Strided, Subsequence
from adpur.diffusion.schedule import NoiseSchedule
from adpur.errors import ConfigError
from adpur.keyed.memory import Budget, Memory, Recompute
from adpur.keyed.noise import Noise
from adpur.models.networks import Networks
from adpur.purify.base import Around, Context, Levels, Purified, Purifier, Shape, replaced


class GradientMode(ABC):
    """A value that maps purifiers to purifiers; attacks know nothing of it.

    `exact` says whether its gradient is meant to be that of the deployed purifier, `draws` whether
    its purifier may draw where the deployed one does not.
    """

    exact: ClassVar[bool]
    draws: ClassVar[bool]

    @abstractmethod
    def view(self, purifier: Purifier) -> Purifier:
        """The purifier the attacker differentiates."""


@dataclass(frozen=True)
class Exact(GradientMode):
    """Plain autograd through every step; memory grows with the number of steps."""

    exact = True
    draws = False

    def view(self, purifier: Purifier) -> Purifier:
        """The deployed purifier."""
        return purifier


@dataclass(frozen=True)
class Checkpointed(GradientMode):
    """The exact gradient with each step recomputed: flat memory for one more forward a step."""

    exact = True
    draws = False

    def view(self, purifier: Purifier) -> Purifier:
        """The deployed purifier, each step checkpointed."""
        return Remembered(purifier, Recompute())


@dataclass(frozen=True)
class Budgeted(GradientMode):
    """The exact gradient in a given memory: the steps that fit are kept, the others recomputed.

    Args:
        gib: for activations, over all threads of the defence.
    """

    exact = True
    draws = False

    gib: float = 8.0

    def __post_init__(self) -> None:
        Budget(self.gib)

    def view(self, purifier: Purifier) -> Purifier:
        """The deployed purifier with a ledger of its own."""
        return Remembered(purifier, Budget(self.gib))


@dataclass(frozen=True)
class Surrogate(GradientMode):
    """The exact gradient of a coarser reverse process from the same levels (Lee & Kim 2023).

    A purifier without a grid, such as ScoreOpt, needs a `Substitute`.
    """

    exact = False
    draws = True

    grid: Grid = Strided(5)

    def view(self, purifier: Purifier) -> Purifier:
        """The deployed purifier on another grid."""
        return replaced(purifier, Grid, lambda deployed: Borrowed(deployed, self.grid))


@dataclass(frozen=True)
class Substitute(GradientMode):
    """The exact gradient of another purifier: GNS's three short rounds, ScoreOpt's one shot."""

    exact = False
    draws = True

    purifier: Purifier

    def view(self, purifier: Purifier) -> Purifier:
        """The other one."""
        return self.purifier


@dataclass(frozen=True)
class BPDA(GradientMode):
    """The classifier's gradient at the purified image (Athalye et al. 2018)."""

    exact = False
    draws = False

    def view(self, purifier: Purifier) -> Purifier:
        """The deployed purifier with the identity for its backward pass."""
        return StraightThrough(purifier)


@dataclass(frozen=True)
class Remembered(Around):
    """Another purifier with another rule for what its steps keep."""

    inner: Purifier
    memory: Memory = field(compare=False)

    def check(self, nets: Networks, shape: Shape) -> None:
        """The inner purifier's."""
        self.inner.check(nets, shape)

    def seen(self, x: Tensor) -> Tensor:
        """The inner purifier's."""
        return self.inner.seen(x)

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        """The inner purifier's."""
        return self.inner.purify(
            x, noise, levels, replace(context, memory=self.memory.shared(context.workers))
        )


@dataclass(frozen=True)
class StraightThrough(Around):
    """Another purifier forward, the identity backward."""

    inner: Purifier

    def check(self, nets: Networks, shape: Shape) -> None:
        """The inner purifier's."""
        self.inner.check(nets, shape)

    def seen(self, x: Tensor) -> Tensor:
        """The inner purifier's."""
        return self.inner.seen(x)

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        """The inner result, as if x had been moved by a constant."""
        with torch.no_grad():
            purified = self.inner.purify(x.detach(), noise, levels, context)
        image: Tensor = _Straight.apply(x, purified.image)
        return purified._replace(image=image)


class _Straight(torch.autograd.Function):
    """Bit-exact where x + (purified - x).detach() would round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, purified: Tensor) -> Tensor:
        return purified.view_as(purified)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


@dataclass(frozen=True)
class Borrowed(Grid):
    """The levels of one grid walked on another: an attack's surrogate of a deployed grid.

    The attacker diffuses to exactly the defence's level, whatever its own steps could reach.
    """

    levels: Grid
    walk: Grid

    def __post_init__(self) -> None:
        lifted = isinstance(self.walk, Subsequence) and self.walk.lift > 0
        if isinstance(self.walk, Inclusive) or lifted:
            raise ConfigError(
                f"a surrogate cannot walk {self.walk}, which moves the level; use Strided, or "
                "Substitute with the whole purifier"
            )

    def check(self, schedule: NoiseSchedule) -> None:
        """Both grids'."""
        self.levels.check(schedule)
        self.walk.check(schedule)

    def times(self, t: Tensor) -> Tensor:
        """The walking grid's, from where the deployed one starts."""
        return self.walk.times(self.levels.times(t)[0])

    def snap(self, t: Tensor, end: float) -> Tensor:
        """The deployed grid's."""
        return self.levels.snap(t, end)
