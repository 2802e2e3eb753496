"""How far the reverse process strays from the forward one, differentiably."""

from collections.abc import Callable

import torch
from torch import Tensor

from adpur.errors import ConfigError

Forward = Callable[[Tensor, Tensor], Tensor]
"""`forward(row, s)`: where rows `(R,)` are at times s `(R,)` on their way forward."""
Watch = Callable[[Tensor, Tensor, Tensor, Tensor], None]
"""`watch(row, busy, s, x)`: in lanes `(R,)` that are busy, these rows have come back to s."""


class Path:
    """The deviation of B reverse walks from their forward processes (Kang et al. 2023, Eq. 8).

    d(x_s, x'_s) is the mean squared difference of all pixels, in signed images, between the
    diffused and the reverse image after each step; the mean over a row's steps is what DiffAttack
    raises. Where `Tap` observes, this is part of the graph: it holds three images a step.

    A purifier that diffuses and comes back calls `beside` once for each walk, also for one in
    which no row moves, and the result at each call of the reverse loop.
    """

    def __init__(self, count: int) -> None:
        self.total: Tensor | None = None
        self.steps = torch.zeros(count, dtype=torch.int64)
        self.walks = 0

    def beside(self, forward: Forward) -> Watch:
        """The observer of one walk."""
        self.walks += 1

        def watch(row: Tensor, busy: Tensor, s: Tensor, x: Tensor) -> None:
            if not x.requires_grad:
                raise ConfigError(
                    "DiffAttack expects a gradient along the reverse process, got BPDA, which has "
                    "none; write gradient: adpur.Exact, adpur.Checkpointed or adpur.Budgeted"
                )
            apart = ((x - forward(row, s)) ** 2).flatten(1).mean(1)  # of R rows: bits follow R
            self._add(row[busy], apart[busy.to(x.device)])

        return watch

    def mean(self) -> Tensor | float:
        """The mean deviation of each row's steps `(B,)`, 0 where t(x) = 0.

        Raises:
            ConfigError: if there was no walk to deviate from.
        """
        if not self.walks:
            raise ConfigError(
                "DiffAttack expects a purifier that diffuses and comes back, got one that does not "
                "(Identity, ScoreOpt); name the rows that do in the block's only:"
            )
        return 0.0 if self.total is None else self.total / self.steps.to(self.total).clamp_min(1)

    def _add(self, row: Tensor, apart: Tensor) -> None:
        self.steps[row] += 1
        where = row.to(apart.device, non_blocking=True)
        start = apart.new_zeros(len(self.steps)) if self.total is None else self.total
        self.total = start.index_add(0, where, apart)
