"""Choosing between images on selection draws, which the evaluation never sees."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from adpur.threat.oracle import Oracle

WITHIN, BETWEEN = 0, 1
"""Iterations of the selection keys: points of one run, and runs of one attack. A choice among
winners on the draws that made them winners would be no choice."""
MEMBERS = 2**20 - 2
"""The iteration that chooses between the attacks of an ensemble."""

Search = Callable[[Oracle, Tensor], Tensor]


def chosen(oracle: Oracle, candidates: list[Tensor], draws: int, iteration: int = WITHIN) -> Tensor:
    """Of K candidates `(B, C, H, W)` for every image, the strongest on the same draws."""
    strength = torch.stack([oracle.strength(x, draws, iteration) for x in candidates])
    return torch.stack(candidates)[strength.argmax(0), torch.arange(len(oracle.y))]


def strongest(
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
