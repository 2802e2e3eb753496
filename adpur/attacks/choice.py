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


def strongest(candidates: Iterable[Tensor], score: Callable[[Tensor], Tensor]) -> Tensor:
    """For each image the candidate `(B, C, H, W)` of highest `score` `(B,)`; of equals the first.

    A single candidate is not scored: there is nothing to choose.
    """
    images = iter(candidates)  # one at a time: there may be thousands
    best, value = next(images), None
    for other in images:
        value, found = score(best) if value is None else value, score(other)
        best = where(found > value, other, best)
        value = torch.maximum(value, found)
    return best


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
