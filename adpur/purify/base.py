"""What a purifier is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.grid import Grid
from adpur.models.networks import Networks
from adpur.noise import Noise
from adpur.step import Step

Tap = Callable[[int, Tensor, Tensor, Tensor], None]
"""Read-only observer `tap(steps_to_go, t, x_t, x0_hat)` of the reverse loop, in signed images."""


class Levels(NamedTuple):
    """Raw levels `(S, B)` of every stage, the score norms `(B,)` behind them (NaN if none), and
    the measured network calls `(B,)` they cost.
    """

    t: Tensor
    score_norm: Tensor
    nfe: Tensor

    def at(self, rows: Tensor) -> "Levels":
        """The levels of some rows."""
        score_norm = self.score_norm[rows.to(self.score_norm.device)]
        return Levels(self.t[:, rows.to(self.t.device)], score_norm, self.nfe[rows])

    def repeat(self, copies: int) -> "Levels":
        """The levels of `copies` of all rows, copy-major."""
        return Levels(self.t.repeat(1, copies), *(v.repeat(copies) for v in self[1:]))


class Purified(NamedTuple):
    """A cleaned image in [0, 1], snapped levels `(S, B)`, measured reverse calls `(B,)`."""

    image: Tensor
    levels: Tensor
    nfe: Tensor


class Purifier(ABC):
    """A map from [0, 1] images to [0, 1] images that borrows networks and owns none.

    Every method gets rows as `rows.chunks` cut them, so that all network calls have R rows.
    """

    @abstractmethod
    def check(self, nets: Networks) -> None:
        """Raise `ConfigError` if these settings cannot work with these networks."""

    @abstractmethod
    def levels(self, x: Tensor, nets: Networks, noise: Noise) -> Levels:
        """The raw noise level of every stage for images `x` `(B, C, H, W)` in [0, 1]."""

    @abstractmethod
    def steps(self, levels: Levels, nets: Networks) -> Tensor:
        """How many reverse steps each row will take, int64 `(B,)`: its cost."""

    @abstractmethod
    def purify(
        self,
        x: Tensor,
        nets: Networks,
        noise: Noise,
        levels: Levels | None = None,
        tap: Tap | None = None,
    ) -> Purified:
        """Clean `x`, at `levels` if given; differentiable in `x` unless the purifier says not."""

    @abstractmethod
    def replaced(
        self,
        step: Callable[[Step], Step] = lambda step: step,
        grid: Callable[[Grid], Grid] = lambda grid: grid,
    ) -> "Purifier":
        """The same purifier with every step and grid mapped: how gradient modes make their view."""


@dataclass(frozen=True)
class Identity(Purifier):
    """No purification: the undefended classifier."""

    def check(self, nets: Networks) -> None:
        """Nothing can be wrong."""

    def levels(self, x: Tensor, nets: Networks, noise: Noise) -> Levels:
        """No stages."""
        norm = x.new_full((len(x),), torch.nan)
        return Levels(x.new_zeros(0, len(x)), norm, torch.zeros(len(x), dtype=torch.int64))

    def steps(self, levels: Levels, nets: Networks) -> Tensor:
        """None."""
        return torch.zeros_like(levels.score_norm, dtype=torch.int64)

    def purify(
        self,
        x: Tensor,
        nets: Networks,
        noise: Noise,
        levels: Levels | None = None,
        tap: Tap | None = None,
    ) -> Purified:
        """The image itself."""
        return Purified(x, x.new_zeros(0, len(x)), torch.zeros(len(x), dtype=torch.int64))

    def replaced(
        self,
        step: Callable[[Step], Step] = lambda step: step,
        grid: Callable[[Grid], Grid] = lambda grid: grid,
    ) -> "Identity":
        """Itself."""
        return self
