"""The reverse loop, once, for every diffusion purifier."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.grid import Grid, Strided
from adpur.level import Constant, NoiseLevel
from adpur.models.denoiser import Denoiser, calls_made
from adpur.models.networks import Networks
from adpur.noise import Noise, Stream
from adpur.purify.base import Levels, Purified, Purifier, Tap
from adpur.step import Ancestral, Step
from adpur.types import expand, to_signed, to_unit

AHEAD = 2**21
"""Noise values drawn in one call at most: 8 MB in fp32."""


@dataclass(frozen=True)
class Diffusion(Purifier):
    """Diffuse to t(x), then walk the grid back to 0 (DiffPure, SSNI Algorithm 1, RevPure).

    Args:
        level: t(x).
        grid: the times in between.
        step: how to get from one to the next.
        inject: diffuse first; False is RevPure, which takes x itself for x_t.
        clamp: clamp the result to [0, 1]. It cuts gradients where it binds.
    """

    level: NoiseLevel = Constant(100)
    grid: Grid = Strided(1)
    step: Step = Ancestral()
    inject: bool = True
    clamp: bool = False

    def check(self, nets: Networks) -> None:
        """t* must lie in the schedule and be reachable by the grid."""
        end, wanted = nets.denoiser.schedule.end, self.level.configured
        if not 0 <= wanted <= end:
            raise ConfigError(f"t* = {wanted:g} lies outside the schedule's 0..{end:g}")
        self.level.check(nets)
        nearest = self._snap(torch.tensor([wanted], dtype=torch.float64), nets).item()
        if nearest != wanted:
            raise ConfigError(
                f"t* = {wanted:g} is not reachable by {self.grid}; "
                f"the nearest valid t* is {nearest:g}"
            )

    def levels(self, x: Tensor, nets: Networks, noise: Noise) -> Levels:
        """One stage."""
        before = calls_made()
        level = self.level.level(to_signed(x), nets.scorer, noise)
        nfe = torch.full((len(x),), calls_made() - before)
        return Levels(level.t[None], level.score_norm, nfe)

    def steps(self, levels: Levels, nets: Networks) -> Tensor:
        """The grid's."""
        return self.grid.steps(self._snap(levels.t[0], nets))

    def purify(
        self,
        x: Tensor,
        nets: Networks,
        noise: Noise,
        levels: Levels | None = None,
        tap: Tap | None = None,
    ) -> Purified:
        """See the class and `reverse`."""
        levels = levels if levels is not None else self.levels(x, nets, noise)
        times = self.grid.times(self._snap(levels.t[0], nets))
        denoiser = nets.denoiser
        x = to_signed(x)
        if self.inject:
            x = denoiser.schedule.diffuse(x, times[0], noise.normal(x, Stream.FORWARD))
        x, nfe = reverse(x, times, self.step, denoiser, noise, tap)
        x = to_unit(x)
        return Purified(x.clamp(0, 1) if self.clamp else x, times[:1], nfe)

    def replaced(
        self,
        step: Callable[[Step], Step] = lambda step: step,
        grid: Callable[[Grid], Grid] = lambda grid: grid,
    ) -> "Diffusion":
        """With another step and grid."""
        return replace(self, step=step(self.step), grid=grid(self.grid))

    def _snap(self, t: Tensor, nets: Networks) -> Tensor:
        return self.grid.snap(t, nets.denoiser.schedule.end)


def reverse(
    x: Tensor, times: Tensor, step: Step, denoiser: Denoiser, noise: Noise, tap: Tap | None = None
) -> tuple[Tensor, Tensor]:
    """Walk `x` (signed, at times[0]) down the columns of `times` `(K+1, B)`.

    A row whose time stands still waits unchanged, bit for bit. Returns x at times[-1] and the
    measured network calls of each row, waiting excluded.
    """
    nfe = torch.zeros(len(x), dtype=torch.int64, device=times.device)
    for to_go, keys in _steps_to_go(x, step, noise, len(times) - 1):
        t, s, before = times[-1 - to_go], times[-to_go], calls_made()
        moved = step.step(x, t, s, denoiser, keys)
        if tap is not None:
            tap(to_go, t, x.detach(), moved.x0.detach())
        moves = s < t
        nfe += moves * (calls_made() - before)
        x = torch.where(expand(moves, x).bool(), moved.x, x)
    return x, nfe


def _steps_to_go(x: Tensor, step: Step, noise: Noise, count: int) -> Iterator[tuple[int, Noise]]:
    """count, ..., 1 with the keys of each, the noise drawn a block of steps at a time."""
    block = max(1, AHEAD // max(1, x.numel()))
    for to_go in range(count, 0, -1):
        if step.stream is not None and (count - to_go) % block == 0:
            noise = noise.ahead(x, step.stream, max(1, to_go - block + 1), to_go)
        yield to_go, noise.fold(step=to_go)
