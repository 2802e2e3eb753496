"""Choosing among an attack's own images."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from adpur.types import expand


def strongest(candidates: Iterable[Tensor], score: Callable[[Tensor], Tensor]) -> Tensor:
    """For each image the candidate `(B, C, H, W)` of highest `score` `(B,)`; of equals the first.

    A single candidate is not scored: there is nothing to choose.
    """
    images = iter(candidates)  # one at a time: there may be thousands
    best, value = next(images), None
    for other in images:
        value, found = score(best) if value is None else value, score(other)
        best = torch.where(expand(found > value, best).bool(), other, best)
        value = torch.maximum(value, found)
    return best
