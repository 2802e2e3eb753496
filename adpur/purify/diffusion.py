"""Diffuse, then walk back: the purifier of most papers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.diffusion.deviation import Watch
from adpur.diffusion.grid import Grid, Strided
from adpur.diffusion.guidance import Guidance
from adpur.diffusion.reverse import Walk, reverse
from adpur.diffusion.schedule import NoiseSchedule
from adpur.diffusion.step import Ancestral, Step
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.models.networks import Networks
from adpur.purify.base import Context, Levels, Purified, Purifier, Shape, fits
from adpur.purify.levels.level import Constant, NoiseLevel, ScoreNorm
from adpur.types import expand, to_signed, to_unit


@dataclass(frozen=True)
class Diffusion(Purifier):
    """Diffuse to t(x), then walk the grid back (DiffPure, SSNI Algorithm 1, RevPure, GDMP, EDM).

    Args:
        level: t(x), in the unit of the schedule.
        grid: the times in between.
        step: how to get from one to the next.
        inject: diffuse first; False is RevPure, which takes x itself for x_t.
        scaled: without injection, take alpha_t x for x_t.
        guidance: pull towards the diffused input (GDMP).
        schedule: walk this one, the network asked at equal noise; by default the network's own.
        clamp: clamp the result to [0, 1]. It cuts gradients where it binds.
        offset: the noise is added at this much beyond the walk's first time, in the schedule's
            unit. Not 0 in two released codes, whose images hold other noise than the first network
            call is told: GDMP's (1) and SSNI-L's (-b).
        table: the noise is added by this schedule, at the same share of its length. DiffPure's
            released VP-SDE adds it by DDPM's discrete table and walks back in continuous time.
    """

    level: NoiseLevel = Constant(100)
    grid: Grid = Strided(1)
    step: Step = Ancestral()
    inject: bool = True
    scaled: bool = False
    guidance: Guidance | None = None
    schedule: NoiseSchedule | None = None
    clamp: bool = False
    offset: float = 0.0
    table: NoiseSchedule | None = None
    depth = 1

    def __post_init__(self) -> None:
        if self.inject and self.scaled:
            raise ConfigError("scaled belongs to inject: false; diffusing scales x already")
        if not self.inject and (self.offset or self.table is not None):
            raise ConfigError("offset and table say how noise is added; write inject: true")

    @property
    def measure(self) -> ScoreNorm | None:
        """The level's."""
        return self.level.measure

    def check(self, nets: Networks, shape: Shape) -> None:
        """t* must lie in the schedule and be reachable by the grid, the step must fit both."""
        fits(nets, shape)
        schedule = self._schedule(nets)
        self.step.check(schedule)
        self.grid.check(schedule)
        if self.guidance is not None:
            self.guidance.check(nets.denoiser.shape)
        end, wanted = schedule.end, self.level.configured
        if not 0 <= wanted <= end:
            raise ConfigError(f"t* = {wanted:g} lies outside the schedule's 0..{end:g}")
        self.level.check(nets)
        nearest = self._snap(torch.tensor([wanted], dtype=torch.float64), nets).item()
        if nearest != wanted:
            raise ConfigError(
                f"t* = {wanted:g} is not reachable by {self.grid}; "
                f"the nearest valid t* is {nearest:g}"
            )
        if (steps := int(self.steps(torch.tensor([[wanted]]).double(), nets))) >= 4096:
            raise ConfigError(f"t* = {wanted:g} takes {steps} steps on {self.grid}; at most 4095")
        largest = torch.tensor([self.level.largest], dtype=torch.float64).clamp_max(end)
        first = self.grid.times(self._snap(largest, nets))[0].item()
        nets.denoiser.on(self.schedule).check_time(first, "this purifier")
        if not 0 <= first + self.offset <= end:
            raise ConfigError(
                f"offset {self.offset:g} adds noise at {first + self.offset:g}, outside the "
                f"schedule's 0..{end:g}"
            )

    def seen(self, x: Tensor) -> Tensor:
        """Itself."""
        return x

    def levels(self, norm: Tensor, noise: Noise) -> Tensor:
        """One stage."""
        return self.level.level(norm, noise)[None]

    def steps(self, levels: Tensor, nets: Networks) -> Tensor:
        """The grid's."""
        return self.grid.steps(self._snap(levels[0].detach(), nets))

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        """See the class and `reverse`."""
        fits(context.nets, tuple(x.shape[1:]))
        times = self.grid.times(self._snap(levels.t[0], context.nets))
        denoiser = context.nets.denoiser.on(self.schedule)
        x = to_signed(x)
        reference = x if context.guide is None else to_signed(context.guide)
        watch = self._watch(x, noise, context)
        if self.inject:
            x = self._diffused(x, times[0], noise.normal(x, Stream.FORWARD), denoiser.schedule)
        elif self.scaled:
            x = expand(denoiser.schedule.alpha(times[0]), x) * x
        walk = Walk(
            self.step, denoiser, context.rows, self.guidance, context.memory, context.tap, watch
        )
        x, nfe = reverse(x, reference, times, walk, noise)
        x = to_unit(x)
        return Purified(x.clamp(0, 1) if self.clamp else x, times[:1].detach(), nfe)

    def _diffused(self, x: Tensor, first: Tensor, eps: Tensor, walked: NoiseSchedule) -> Tensor:
        """The noisy image `(B, C, H, W)` from which the walk sets out at `first` `(B,)`."""
        # A row that does not move at all (t = 0) keeps its image: it has no first call to be told.
        t = torch.where(first > 0, first + self.offset, first) if self.offset else first
        if self.table is None:
            return walked.diffuse(x, t, eps)
        return self.table.diffuse(x, t.double() * (self.table.end / walked.end), eps)

    def _watch(self, x: Tensor, noise: Noise, context: Context) -> Watch | None:
        """Compares the walk with the images that the forward process's own noise makes of x."""
        if context.path is None:
            return None
        if not self.inject:
            raise ConfigError(
                "DiffAttack expects a row that diffuses its input, got inject: false (RevPure), "
                "whose walk has no forward process to deviate from; leave it out of only:"
            )
        schedule, eps = self._schedule(context.nets), noise.normal(x, Stream.FORWARD)
        return context.path.beside(lambda row, s: schedule.diffuse(x[row], s, eps[row]))

    def _schedule(self, nets: Networks) -> NoiseSchedule:
        return self.schedule or nets.denoiser.schedule

    def _snap(self, t: Tensor, nets: Networks) -> Tensor:
        """The grid's; where t(x) is differentiated, rounding has the identity's gradient."""
        snapped = self.grid.snap(t, self._schedule(nets).end)
        rounded = t.requires_grad and not snapped.requires_grad
        return snapped.double() + (t - t.detach()) if rounded else snapped
