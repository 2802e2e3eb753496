"""Choosing between images on selection draws, which the evaluation never sees."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from adpur.threat.oracle import Oracle
from adpur.types import where

WITHIN, BETWEEN = 0, 1
"""Iterations of the selection keys: points of one run, and runs of one attack. A choice among
winners on the draws that made them winners would be no choice."""
MEMBERS = 2**20 - 2
"""The iteration that chooses between the attacks of an ensemble."""

Search = Callable[[Oracle, Tensor], Tensor]


class Best:
    """For each image the candidate `(B, C, H, W)` of highest `score` `(B,)`; of equals the first.

    Candidates are offered one at a time: there may be thousands. A single one is not scored: there
    is nothing to choose.
    """

    image: Tensor

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        self.score = score
        self.offered = 0
        self._value: Tensor

    def offer(self, image: Tensor) -> None:
        """Take it for the images for which it is the best so far."""
        self.offered += 1
        if self.offered == 1:
            self.image = image
            return
        if self.offered == 2:
            self._value = self.score(self.image)
        value = self.score(image)
        self.image = where(value > self._value, image, self.image)
        self._value = torch.maximum(self._value, value)


def strongest(candidates: Iterable[Tensor], score: Callable[[Tensor], Tensor]) -> Tensor:
    """The `Best` of some candidates."""
    best = Best(score)
    for image in candidates:
        best.offer(image)
    return best.image


def strongest_found(
    oracle: Oracle, x: Tensor, searches: Iterable[tuple[Oracle, Search]], draws: int,
    iteration: int = BETWEEN,
) -> Tensor:  # fmt: skip
    """For every image of `x` `(B, C, H, W)`, the strongest of what several searches found.

    The first search gets every image. Where nothing is random, later ones get those that are still
    classified right: exact there, a bias anywhere else.
    """
    best, strength = x.clone(), x.new_full((len(x),), -torch.inf, dtype=torch.float64)
    for own, search in searches:
        rows = (strength < (torch.inf if oracle.random else 1)).nonzero().flatten()
        if not len(rows):
            break
        found = search(own.at(rows), x[rows]).detach()
        value = oracle.at(rows).strength(found, draws, iteration)
        better = value > strength[rows]
        best[rows[better]], strength[rows[better]] = found[better], value[better]
    return best
