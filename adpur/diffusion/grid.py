"""Which times the reverse process visits."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.diffusion.schedule import VE, ContinuousSchedule, DiscreteVP, LinearVP, NoiseSchedule
from adpur.errors import ConfigError


class Grid(ABC):
    """Non-increasing times from t to the end of the walk for every row."""

    @abstractmethod
    def check(self, schedule: NoiseSchedule) -> None:
        """Raise `ConfigError` if its times are not that schedule's."""

    @abstractmethod
    def times(self, t: Tensor) -> Tensor:
        """`(K+1, B)` times from a snapped `t` `(B,)`; the first is t (or as the grid says).

        Rows that need fewer than K steps wait on the left, at their first time, never between
        steps: a wait at t = 0 would divide 0 by 0.
        """

    @abstractmethod
    def snap(self, t: Tensor, end: float) -> Tensor:
        """The reachable time nearest to any real `t` `(B,)` in [0, end], in the schedule's unit."""

    def steps(self, t: Tensor) -> Tensor:
        """How many steps each snapped t needs, int64 `(B,)`."""
        times = self.times(t)
        return (times[1:] != times[:-1]).sum(0)


@dataclass(frozen=True)
class Strided(Grid):
    """t, t - stride, ..., stride, 0 on an integer schedule; multiples of `stride` are reachable.

    The convention of DiffPure and Lee & Kim: t steps of stride 1 from abar_t end at t = 0.

    >>> Strided(50).times(torch.tensor([100, 50, 0])).tolist()
    [[100, 50, 0], [50, 50, 0], [0, 0, 0]]
    """

    stride: int = 1

    def __post_init__(self) -> None:
        _positive(self, "stride")

    def check(self, schedule: NoiseSchedule) -> None:
        """DDPM's steps."""
        _needs(self, schedule, DiscreteVP)

    def times(self, t: Tensor) -> Tensor:
        """K = max(t) / stride; from a t between multiples, the first step is the shorter one."""
        return _down(t, self.stride)

    def snap(self, t: Tensor, end: float) -> Tensor:
        """The nearest multiple of the stride not beyond `end`; halves go up."""
        return _multiple(t, self.stride, int(end) // self.stride)


@dataclass(frozen=True)
class Inclusive(Grid):
    """t + 1, t + 1 - stride, ..., 1, 0: ADDT's evaluation, t / stride + 1 network calls.

    Its images are noised at diffusers' index t, which is this schedule's t + 1, and the index 0
    is visited too: "NFE 5" at t* = 100 is 6 calls, "NFE 100" is 101.

    Args:
        stride: DDPM steps a network call.
        count: in place of the stride, this many nearly equal steps from any t down to 1 (the NFE
            that ADDT counts), and the one to 0; a t below `count` takes t of them.

    >>> Inclusive(50).times(torch.tensor([100, 50, 0])).tolist()
    [[101, 51, 0], [51, 51, 0], [1, 1, 0], [0, 0, 0]]
    >>> Inclusive(count=2).times(torch.tensor([100, 50, 0])).tolist()
    [[101, 51, 0], [51, 26, 0], [1, 1, 0], [0, 0, 0]]
    """

    stride: int = 20
    count: int | None = None

    def __post_init__(self) -> None:
        _positive(self, "stride")
        if self.count is not None:
            _positive(self, "count")

    def check(self, schedule: NoiseSchedule) -> None:
        """DDPM's steps."""
        _needs(self, schedule, DiscreteVP)

    def times(self, t: Tensor) -> Tensor:
        """See the class; a row at 0 stays there."""
        left = _down(t, self.stride) if self.count is None else _counted(t, self.count)
        left = left + 1
        return torch.cat((torch.where(t > 0, left, t), torch.zeros_like(t)[None]))

    def snap(self, t: Tensor, end: float) -> Tensor:
        """The nearest multiple of the stride (of 1 with a count) whose successor lies in the
        schedule.
        """
        stride = self.stride if self.count is None else 1
        return _multiple(t, stride, (int(end) - 1) // stride)


@dataclass(frozen=True)
class Subsequence(Grid):
    """`count` nearly equal integer steps from any t (RevPure's s* of t*).

    The k-th time from the end is k t / count rounded, halves up; a t below `count` takes t steps.

    Args:
        count: steps.
        up: round all up, as the code of SSNI does. It makes `count` calls for a t below `count`
            too; those that repeat a time change nothing and are not made here.
        lift: every time of the walk but 0 stands this much higher (SSNI-L's released b, added a
            second time).

    >>> Subsequence(4).times(torch.tensor([150, 2])).tolist()
    [[150, 2], [113, 2], [75, 2], [38, 1], [0, 0]]
    >>> Subsequence(4, up=True, lift=5).times(torch.tensor([147, 2, 0])).tolist()
    [[152, 7, 0], [116, 7, 0], [79, 7, 0], [42, 6, 0], [0, 0, 0]]
    """

    count: int
    up: bool = False
    lift: int = 0

    def __post_init__(self) -> None:
        _positive(self, "count")
        if self.lift < 0:
            raise ConfigError(f"Subsequence lift must be an integer >= 0, got {self.lift}")

    def check(self, schedule: NoiseSchedule) -> None:
        """DDPM's steps."""
        _needs(self, schedule, DiscreteVP)

    def times(self, t: Tensor) -> Tensor:
        """K = count, or max(t) if that is less."""
        times = _counted(t, self.count, self.up)
        return torch.where(times > 0, times + self.lift, times) if self.lift else times

    def snap(self, t: Tensor, end: float) -> Tensor:
        """The nearest integer; halves go up. A lifted walk stays in the schedule."""
        return _multiple(t, 1, int(end) - self.lift)


@dataclass(frozen=True)
class Even(Grid):
    """Real times: t, then multiples of `step` down to `last` (DiffPure's VP-SDE: 1e-3 to 1e-5).

    Every t is reachable and t(x) stays differentiable: the first step carries what is left over.

    >>> Even(0.25, 0.125).times(torch.tensor([0.5, 0.375, 0.0])).tolist()
    [[0.5, 0.375, 0.0], [0.25, 0.25, 0.0], [0.125, 0.125, 0.0]]
    """

    step: float = 1e-3
    last: float = 1e-5

    def __post_init__(self) -> None:
        if not 0 <= self.last < self.step:
            raise ConfigError(f"Even needs 0 <= last < step, got {self.last} and {self.step}")

    def check(self, schedule: NoiseSchedule) -> None:
        """Real times."""
        _needs(self, schedule, ContinuousSchedule)

    def times(self, t: Tensor) -> Tensor:
        """K = max(t) / step, rounded up; a row at or below `last` stays where it is."""
        slack = 1e-9 * self.step  # 0.3 is not 300 * 0.001
        count = math.ceil((t.max().item() - slack) / self.step) if len(t) else 0
        left = _countdown(max(count, 0)) * self.step
        times = torch.where(left >= t - slack, t, left.clamp_min(self.last))
        return torch.where(t > self.last, times, t)

    def snap(self, t: Tensor, end: float) -> Tensor:
        """Unchanged, at most `end`; 0 if not above `last`."""
        return torch.where(t > self.last, t.double().clamp(0, end), 0.0)


@dataclass(frozen=True)
class Counted(Grid):
    """Real times: `count` equal steps from any t down to `last`, whatever t is.

    Where `Even` fixes the length of a step and calls follow t(x), here calls are fixed and the
    step follows t(x).

    >>> Counted(2, 0.25).times(torch.tensor([0.75, 0.5, 0.0])).tolist()
    [[0.75, 0.5, 0.0], [0.5, 0.375, 0.0], [0.25, 0.25, 0.0]]
    """

    count: int = 20
    last: float = 1e-5

    def __post_init__(self) -> None:
        _positive(self, "count")
        if not self.last >= 0:
            raise ConfigError(f"Counted last must be >= 0, got {self.last}")

    def check(self, schedule: NoiseSchedule) -> None:
        """Real times."""
        _needs(self, schedule, ContinuousSchedule)

    def times(self, t: Tensor) -> Tensor:
        """K = count; a row at or below `last` stays where it is."""
        share = _countdown(self.count) / self.count
        times = torch.cat((t[None], (self.last + share * (t - self.last))[1:]))
        return torch.where(t > self.last, times, t)

    def snap(self, t: Tensor, end: float) -> Tensor:
        """Unchanged, at most `end`; 0 if not above `last`."""
        return torch.where(t > self.last, t.double().clamp(0, end), 0.0)


@dataclass(frozen=True)
class Karras(Grid):
    """EDM's grid (Karras et al. 2022, Eq. 5): `count` steps from sigma t, the last one to 0.

    t_i = (t^(1/rho) + i / (count - 1) (sigma_min^(1/rho) - t^(1/rho)))^rho, and t_count = 0.
    """

    count: int = 50
    sigma_min: float = 0.002
    rho: float = 7.0

    def __post_init__(self) -> None:
        if self.count < 2 or not (self.sigma_min > 0 and self.rho > 0):
            raise ConfigError(
                "Karras needs count >= 2, sigma_min > 0 and rho > 0, got "
                f"{self.count}, {self.sigma_min}, {self.rho}"
            )

    def check(self, schedule: NoiseSchedule) -> None:
        """Times are sigmas."""
        _needs(self, schedule, VE)

    def times(self, t: Tensor) -> Tensor:
        """K = count for every row that moves."""
        share = torch.arange(self.count, dtype=torch.float64).view(-1, 1) / (self.count - 1)
        # exp and log, not a power, whose last bit depends on a row's place in the batch
        root = (t.clamp_min(self.sigma_min).log() / self.rho).exp()
        low = self.sigma_min ** (1 / self.rho)
        times = torch.cat((t[None], ((root + share * (low - root)).log() * self.rho).exp()[1:]))
        times = torch.where(t > self.sigma_min, times, t)  # at sigma_min: one step
        return torch.cat((times, torch.zeros_like(t)[None]))

    def snap(self, t: Tensor, end: float) -> Tensor:
        """Unchanged above sigma_min; below, the nearer of sigma_min and 0."""
        raised = t.double().clamp(self.sigma_min, end)
        return torch.where(t < self.sigma_min / 2, 0.0, raised)


@dataclass(frozen=True)
class OneShot(Grid):
    """t, 0: one network call (ScoreOpt's surrogate of its own purifier).

    >>> OneShot().times(torch.tensor([0.5, 0.0])).tolist()
    [[0.5, 0.0], [0.0, 0.0]]
    """

    def check(self, schedule: NoiseSchedule) -> None:
        """Any."""

    def times(self, t: Tensor) -> Tensor:
        """Two."""
        return torch.stack((t, torch.zeros_like(t)))

    def snap(self, t: Tensor, end: float) -> Tensor:
        """Unchanged."""
        return t.double().clamp(0, end)


def _countdown(count: int) -> Tensor:
    """count, ..., 1, 0 as a column, fp64."""
    return torch.arange(count, -1, -1, dtype=torch.float64).view(-1, 1)


def _counted(t: Tensor, count: int, up: bool = False) -> Tensor:
    """`count` nearly equal integer steps from t to 0, or t of them where that is less.

    The k-th from the end is at k t / count, rounded up or to the nearest, halves up. Waits stand
    on the left.
    """
    whole = t.detach().double()
    own = whole.clamp(1, count)
    left = _countdown(int(own.max()) if len(t) else 0)
    # k t is an integer below 2^53, so that the quotient is an integer exactly where it should be
    exact = left * whole / own
    times = (exact.ceil() if up else (exact + 0.5).floor()).to(t.dtype)
    return torch.where(left < own, times, t)


def _down(t: Tensor, stride: int) -> Tensor:
    """Multiples of the stride below t, then t itself: not a minimum, which halves gradients at
    ties.
    """
    count = math.ceil(t.max().item() / stride) if len(t) else 0
    left = (_countdown(count) * stride).to(t.dtype)
    return torch.where(left < t, left, t)


def _needs(grid: Grid, schedule: NoiseSchedule, kind: type[object]) -> None:
    if not isinstance(schedule, kind):
        use = DiscreteVP if kind is DiscreteVP else VE if kind is VE else LinearVP
        raise ConfigError(
            f"{type(grid).__name__} cannot walk the times of {type(schedule).__name__}; write "
            f"schedule: {{class_path: adpur.{use.__name__}}} in the row, and its level in that unit"
        )


def _multiple(t: Tensor, stride: int, top: int) -> Tensor:
    return (t.detach().double() / stride + 0.5).floor().clamp(0, top).long() * stride


def _positive(grid: Grid, name: str) -> None:
    value = getattr(grid, name)
    if value < 1:
        raise ConfigError(f"{type(grid).__name__} {name} must be a positive integer, got {value}")
