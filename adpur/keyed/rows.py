"""Rows: the unit of work, of speed and of reproducibility.

A convolution's last bits depend on how many rows share the call, not on which. So every network
call of a run has exactly R rows; a short one is filled with repeats whose results are dropped.
With R fixed, a result depends neither on the batch nor on its order, a crash, or the number of
processes.
"""

import heapq
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Work = Callable[[Tensor], Sequence[Tensor]]
_made = threading.local()
_everywhere, _lock = 0, threading.Lock()


def calls_made() -> int:
    """How many diffusion-network calls this thread has made; purifiers report differences."""
    return getattr(_made, "count", 0)


def count_call() -> None:
    """Count one."""
    global _everywhere
    _made.count = calls_made() + 1
    with _lock:
        _everywhere += 1


def calls_everywhere() -> int:
    """How many all threads have made, what was run again for its gradient included."""
    return _everywhere


@contextmanager
def uncounted() -> Iterator[None]:
    """Calls made inside measure something else than a purifier."""
    before = calls_made()
    yield
    _made.count = before


def chunks(count: int, rows: int) -> Iterator[tuple[Tensor, int]]:
    """Row numbers 0..count-1 in pieces of exactly `rows`, and how many of each are real.

    >>> [(c.tolist(), n) for c, n in chunks(3, 2)]
    [([0, 1], 2), ([2, 2], 1)]
    """
    for start in range(0, count, rows):
        part = torch.arange(start, min(start + rows, count))
        yield torch.cat((part, part[-1:].expand(rows - len(part)))), len(part)


def in_calls(work: Work, count: int, rows: int) -> list[Tensor]:
    """`work(row numbers)` on calls of exactly `rows`; results for rows 0..count-1, in order."""
    if count == rows:
        return list(work(torch.arange(rows)))
    parts = [[v[:real] for v in work(chunk)] for chunk, real in chunks(count, rows)]
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def groups(cost: Tensor, rows: int, parts: int) -> list[Tensor]:
    """Divide rows of known `cost` `(B,)` into `parts` of nearly equal work for `rows` lanes each.

    >>> [g.tolist() for g in groups(torch.tensor([1, 3, 2, 0]), 1, 2)]
    [[1, 3], [2, 0]]
    """
    held, costs = _longest_first(cost, rows * parts), cost.tolist()
    loads = [sum(costs[i] for i in lane) for lane in held]
    order = sorted(range(len(held)), key=lambda k: -loads[k])
    cut = [[i for k in order[p * rows : (p + 1) * rows] for i in held[k]] for p in range(parts)]
    return [torch.tensor(part) for part in cut if part]


def mapped(work: Work, parts: list[Tensor], workers: int = 1) -> list[Tensor]:
    """`work(row numbers)` on every part, its results put back in batch order.

    On a CPU, small networks gain nothing from threads inside an operation and nearly everything
    from `workers` threads that each work on a part; results are the same to the bit.
    """
    grad = torch.is_grad_enabled()

    def run(part: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(grad):  # the mode is each thread's own
            return list(work(part))

    found = []
    if workers == 1 or len(parts) == 1:
        for part in parts:
            found.append(list(work(part)))
    else:
        with ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(run, parts))
    back = torch.cat(parts).argsort()
    return [torch.cat(column)[back.to(column[0].device)] for column in zip(*found, strict=True)]


class Lanes(NamedTuple):
    """A timetable: at each of L calls, what each of R lanes does, `(L, R)` on the host.

    `row` is the row a lane works on, `to_go` how many of its steps remain, this one included;
    a lane that is not `active` idles on a valid step of some row, whose result is dropped.
    """

    row: Tensor
    to_go: Tensor
    active: Tensor


def lanes(cost: Tensor, count: int) -> Lanes:
    """Rows of known `cost` `(B,)` end to end in `count` lanes, so that all are busy to the end.

    Calls follow the sum of the costs, not B times the largest. Rows without cost are left out.

    >>> plan = lanes(torch.tensor([2, 1, 3, 0]), 2)
    >>> plan.row.tolist(), plan.to_go.tolist()
    ([[2, 0], [2, 0], [2, 1]], [[3, 2], [2, 1], [1, 1]])
    """
    held, costs = _longest_first(cost, count), cost.tolist()
    length = max(sum(costs[i] for i in lane) for lane in held)
    row = np.full((length, count), int(cost.argmax()))
    to_go = np.ones((length, count), dtype=np.int64)
    active = np.zeros((length, count), dtype=bool)
    for k, lane in enumerate(held):
        start = 0
        for i in lane:
            end = start + costs[i]
            if end > start:
                row[start:, k], active[start:end, k] = i, True
                to_go[start:end, k] = np.arange(end - start, 0, -1)
            start = end
    return Lanes(torch.from_numpy(row), torch.from_numpy(to_go), torch.from_numpy(active))


def _longest_first(cost: Tensor, count: int) -> list[list[int]]:
    """Graham's rule: the longest remaining job to the least loaded of `count` lanes."""
    heap = [(0, 0, k) for k in range(count)]
    held: list[list[int]] = [[] for _ in range(count)]
    costs = cost.tolist()
    for i in cost.argsort(descending=True, stable=True).tolist():
        load, jobs, k = heapq.heappop(heap)
        held[k].append(i)
        heapq.heappush(heap, (load + costs[i], jobs + 1, k))
    return held
