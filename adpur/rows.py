"""Rows: the unit of work, of speed and of reproducibility.

A convolution's last bits depend on how many rows share the call, not on which. So every network
call of a run has exactly R rows; a short one is filled with repeats whose results are dropped.
With R fixed, a result depends neither on the batch nor on its order, a crash, or the number of
processes.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

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
    work: Callable[[Tensor, int], Sequence[Tensor]], cost: Tensor, rows: int, workers: int = 1
) -> list[Tensor]:
    """Call `work(row numbers, real)` on every chunk and put its results back in batch order.

    `work` returns tensors whose first dimension is the chunk's; so do the results, for the batch.
    On a CPU, small networks gain nothing from threads inside an operation and nearly everything
    from `workers` threads that each run a chunk; results are the same to the bit.
    """
    cut = list(chunks(cost, rows))
    grad = torch.is_grad_enabled()

    def run(chunk: Tensor, real: int) -> list[Tensor]:
        with torch.set_grad_enabled(grad):  # the mode is each thread's own
            return [result[:real] for result in work(chunk, real)]

    if workers == 1 or len(cut) == 1:
        parts = [run(*c) for c in cut]
    else:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(run, *zip(*cut, strict=True)))
    back = torch.cat([chunk[:real] for chunk, real in cut]).argsort()
    return [torch.cat(column)[back.to(column[0].device)] for column in zip(*parts, strict=True)]
