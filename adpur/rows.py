"""Rows: the unit of work, of speed and of reproducibility.

A convolution's last bits depend on how many rows share the call, not on which. So every network
call of a run has exactly R rows; a short one is filled with repeats whose results are dropped.
With R fixed, a result depends neither on the batch nor on its order, a crash, or the number of
processes.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor


def chunks(cost: Tensor, rows: int) -> Iterator[tuple[Tensor, int]]:
    """Cut B rows of a known `cost` `(B,)` into chunks of exactly `rows`, the dearest first.

    Yields row numbers `(rows,)` and how many of them are real. Sorting keeps the cost of a chunk
    near that of each of its rows; padding falls on the cheapest.

    >>> [(c.tolist(), n) for c, n in chunks(torch.tensor([1, 3, 2]), 2)]
    [([1, 2], 2), ([0, 0], 1)]
    """
    order = cost.argsort(descending=True, stable=True)
    for start in range(0, len(order), rows):
        part = order[start : start + rows]
        yield torch.cat((part, part[-1:].expand(rows - len(part)))), len(part)


def mapped(
    work: Callable[[Tensor, int], Sequence[Tensor]], cost: Tensor, rows: int
) -> list[Tensor]:
    """Call `work(row numbers, real)` on every chunk and put its results back in batch order.

    `work` returns tensors whose first dimension is the chunk's; so do the results, for the batch.
    """
    order, parts = [], []
    for chunk, real in chunks(cost, rows):
        order.append(chunk[:real])
        parts.append([result[:real] for result in work(chunk, real)])
    back = torch.cat(order).argsort()
    return [torch.cat(column)[back.to(column[0].device)] for column in zip(*parts, strict=True)]
