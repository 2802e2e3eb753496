"""Which times the reverse process visits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.errors import ConfigError


class Grid(ABC):
    """Non-increasing times from t to 0 for every row."""

    @abstractmethod
    def times(self, t: Tensor) -> Tensor:
        """`(K+1, B)` times from a snapped `t` `(B,)`; row b starts at t[b] and ends at 0.

        Rows that need fewer than K steps wait on the left, at their own t, which keeps every
        intermediate value finite: a wait at t = 0 would divide 0 by 0.
        """

    @abstractmethod
    def snap(self, t: Tensor, end: float) -> Tensor:
        """The reachable time nearest to any real `t` `(B,)` in [0, end], in the schedule's unit."""

    def steps(self, t: Tensor) -> Tensor:
        """How many steps each snapped t needs, int64 `(B,)`."""
        times = self.times(t)
        return (times[1:] != times[:-1]).sum(0)


@dataclass(frozen=True)
class Strided(Grid):
    """t, t - stride, ..., stride, 0 on an integer schedule; multiples of `stride` are reachable.

    The convention of DiffPure and Lee & Kim: t steps of stride 1 from abar_t end at t = 0.

    >>> Strided(50).times(torch.tensor([100, 50, 0])).tolist()
    [[100, 50, 0], [50, 50, 0], [0, 0, 0]]
    """

    stride: int = 1

    def __post_init__(self) -> None:
        if self.stride < 1:
            raise ConfigError(f"Strided stride must be a positive integer, got {self.stride}")

    def times(self, t: Tensor) -> Tensor:
        """K = max(t) / stride; from a t between multiples, the first step is the shorter one."""
        count = -(-int(t.max()) // self.stride) if len(t) else 0
        left = torch.arange(count, -1, -1, device=t.device).view(-1, 1) * self.stride
        return torch.minimum(left, t)

    def snap(self, t: Tensor, end: float) -> Tensor:
        """The nearest multiple of the stride not beyond `end`; halves go up."""
        top = int(end) // self.stride
        return (t.double() / self.stride + 0.5).floor().clamp(0, top).long() * self.stride


@dataclass(frozen=True)
class Borrowed(Grid):
    """The levels of one grid walked on another: an attack's surrogate of a deployed grid.

    The attacker diffuses to exactly the defence's level, whatever its own steps could reach.
    """

    levels: Grid
    walk: Grid

    def times(self, t: Tensor) -> Tensor:
        """The walking grid's."""
        return self.walk.times(t)

    def snap(self, t: Tensor, end: float) -> Tensor:
        """The deployed grid's."""
        return self.levels.snap(t, end)
