"""The reverse loop, once, for every diffusion purifier."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.deviation import Watch
from adpur.diffusion.guidance import Guidance
from adpur.diffusion.step import Step
from adpur.keyed.memory import Keep, Memory
from adpur.keyed.noise import Noise
from adpur.keyed.rows import Lanes, calls_made, lanes
from adpur.types import expand


class Seen(NamedTuple):
    """What a tap sees of rows about to move: which, their steps to go, t, x_t and x0_hat."""

    row: Tensor
    to_go: Tensor
    t: Tensor
    x: Tensor
    x0: Tensor


Tap = Callable[[Seen], None]
"""Read-only observer of the reverse loop, in signed images; each row and step once."""


AHEAD = 2**21
"""Noise values drawn in one call at most: 8 MB in fp32."""


@dataclass(frozen=True)
class Walk:
    """How rows walk: by which step, under which guidance, R at a time.

    Calling it is one step, as `Memory.run` wants it.
    """

    step: Step
    denoiser: Denoiser
    rows: int
    guidance: Guidance | None = None
    memory: Memory = Keep()
    tap: Tap | None = None
    watch: Watch | None = None

    def __call__(
        self, noise: Noise, x: Tensor, t: Tensor, s: Tensor, reference: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x_s and x0_hat."""
        moved = self.step.step(x, t, s, self.denoiser, noise)
        if self.guidance is None or reference is None:
            return moved
        shift = self.guidance.shift(x, reference, t, s, self.denoiser.schedule, noise)
        return moved.x + shift, moved.x0


def reverse(
    x: Tensor, reference: Tensor, times: Tensor, walk: Walk, noise: Noise
) -> tuple[Tensor, Tensor]:
    """Walk `x` (signed, at times[0]) down the columns of `times` `(K+1, B)` in R lanes.

    A row whose steps are done makes room for the next, so every call is full to the end; whom a
    row shares its calls with changes none of its bits. Returns x at times[-1] and the measured
    network calls of each row.
    """
    cost = (times[1:] != times[:-1]).sum(0).detach()
    nfe = torch.zeros_like(cost)
    if not cost.any():
        return x, nfe
    plan = lanes(cost, walk.rows)
    row = plan.row.to(x.device, non_blocking=True)
    last = len(times) - 1
    begins = plan.active & (plan.to_go == cost[plan.row])
    leaves = plan.active & (plan.to_go == 1)
    still = (cost == 0).nonzero().flatten()
    lane, done, order = x[row[0]], [x[still.to(x.device)]], [still]
    for k, keys in enumerate(_keys(x, plan, walk.step, noise)):
        busy, column = plan.active[k], last - plan.to_go[k]
        if k and begins[k].any():
            lane = _where(begins[k], x[row[k]], lane)
        t, s = times[column, plan.row[k]], times[column + 1, plan.row[k]]
        inputs = (lane, t, s) if walk.guidance is None else (lane, t, s, reference[row[k]])
        before = calls_made()
        moved, x0 = walk.memory.run(partial(walk, keys), *inputs, kind=(walk.step, walk.guidance))
        used = walk.step.calls(s.detach())
        assert calls_made() - before == used.max()
        nfe.index_add_(0, plan.row[k][busy], used[busy])
        if walk.tap is not None:
            seen = (plan.row[k], plan.to_go[k], t.detach(), lane.detach(), x0.detach())
            walk.tap(Seen(*(v[busy.to(v.device)] for v in seen)))
        if walk.watch is not None:
            walk.watch(plan.row[k], busy, s, moved)
        lane = _where(busy, moved, lane)
        if leaves[k].any():
            done.append(lane[leaves[k].nonzero().flatten().to(x.device, non_blocking=True)])
            order.append(plan.row[k][leaves[k]])
    back = torch.cat(order).argsort().to(x.device, non_blocking=True)
    return torch.cat(done)[back], nfe


def _where(mask: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Rows of `yes` where the host's `mask` `(R,)` says, else of `no`."""
    return yes if mask.all() else torch.where(expand(mask, yes).bool(), yes, no)


def _keys(x: Tensor, plan: Lanes, step: Step, noise: Noise) -> Iterator[Noise]:
    """The keys of every call, the noise drawn a block of calls at a time."""
    count, rows = plan.row.shape
    block = max(1, AHEAD // (rows * x[0].numel()))
    device = noise.index.device
    for first in range(0, count, block):
        row, to_go = (v[first : first + block] for v in (plan.row, plan.to_go))
        if step.stream is not None:
            yield from noise.ahead(x, step.stream, row, to_go)
        else:
            for r, left in zip(row, to_go, strict=True):
                yield noise[r.to(device)].fold(step=left.to(device))
