"""How much noise each image gets: t(x)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import DiscreteVP, LinearVP, NoiseSchedule
from adpur.errors import ConfigError
from adpur.keyed.memory import Keep, Memory
from adpur.keyed.noise import Noise, Source, Stream
from adpur.keyed.rows import in_calls
from adpur.models.checkpoints.fingerprint import fingerprint, is_of
from adpur.models.networks import Networks
from adpur.purify.levels.curve import Curve
from adpur.purify.levels.reference import Reference
from adpur.types import to_signed


class NoiseLevel(ABC):
    """A rule for the noise level t(x) of each image."""

    @property
    @abstractmethod
    def configured(self) -> float:
        """The t* the user wrote; the grid must reach it, while a computed t(x) is snapped."""

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest t(x) that any image can get."""

    @property
    @abstractmethod
    def measure(self) -> "ScoreNorm | None":
        """The score norm t(x) is computed from; None if it needs none."""

    @abstractmethod
    def check(self, nets: Networks) -> None:
        """Raise `ConfigError` if this level was made for other networks."""

    @abstractmethod
    def level(self, norm: Tensor, noise: Noise) -> Tensor:
        """t(x), fp64 `(B,)` in the schedule's unit and before snapping, from norms fp64 `(B,)`."""


@dataclass(frozen=True)
class Constant(NoiseLevel):
    """One t* for every image: DiffPure and most of its successors."""

    t: float = 100
    measure = None

    @property
    def configured(self) -> float:
        """t*."""
        return self.t

    @property
    def largest(self) -> float:
        """t*."""
        return self.t

    def check(self, nets: Networks) -> None:
        """A constant fits any."""

    def level(self, norm: Tensor, noise: Noise) -> Tensor:
        """t* for each row."""
        return torch.full_like(norm, float(self.t))


@dataclass(frozen=True)
class Jittered(NoiseLevel):
    """Another level plus a uniform draw on [-width, width]: DiffPure's `rand_t`.

    The whole purification uses the drawn level, forward and reverse.
    """

    inner: NoiseLevel
    width: float

    def __post_init__(self) -> None:
        if not 0 < self.width < float("inf"):
            raise ConfigError(f"Jittered width must be positive, got {self.width}")

    @property
    def configured(self) -> float:
        """The inner t*."""
        return self.inner.configured

    @property
    def largest(self) -> float:
        """The inner level's, and the width."""
        return self.inner.largest + self.width

    @property
    def measure(self) -> "ScoreNorm | None":
        """The inner level's."""
        return self.inner.measure

    def check(self, nets: Networks) -> None:
        """The inner level's."""
        self.inner.check(nets)

    def level(self, norm: Tensor, noise: Noise) -> Tensor:
        """One draw per key."""
        u = noise.fold(step=0).uniform(norm.detach(), Stream.LEVEL).to(norm.device)
        return self.inner.level(norm, noise) + self.width * (2 * u - 1)


@dataclass(frozen=True)
class ScoreNorm:
    """||EPS(x)||_2, the norm of the mean score over small noise levels (SSNI section 3.2).

    EPS(x) = 1/levels sum_j score_{t_j}(x_{t_j}) on the equidistant t_j = j horizon / levels,
    one keyed Gaussian each: the norm of the mean, as in Zhang et al. (2023), not the mean of
    norms. It costs `levels` network calls an image. `levels=1` is SSNI's single score norm.
    `horizon` counts DDPM steps; networks of other schedules are asked at equal noise.

    Args:
        horizon: T'.
        levels: how many times are averaged over.
        continuous: t_j are thousandths of the VP-SDE's time, as in the code of EPS-AD and SSNI,
            not DDPM's steps: the same network, at slightly less noise (4 % of the norm).
        noised: False takes the score of x itself at those times, no Gaussian added, as SSNI's code
            does for its single score norm.
    """

    horizon: int = 20
    levels: int = 20
    continuous: bool = False
    noised: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.levels <= self.horizon:
            raise ConfigError(
                f"ScoreNorm needs 1 <= levels <= horizon, got {self.levels}, {self.horizon}"
            )

    def check(self, scorer: Denoiser) -> None:
        """Raise `ConfigError` if the horizon is beyond what the network was trained on."""
        scorer, unit = self._timed(scorer)
        if self.horizon * unit > scorer.schedule.end:
            end = scorer.schedule.end / unit
            raise ConfigError(f"horizon {self.horizon} lies beyond T = {end:g}")
        scorer.check_time(self.horizon * unit, f"a score norm of horizon {self.horizon}")

    def __call__(
        self, x: Tensor, scorer: Denoiser, noise: Noise, memory: Memory = Keep()
    ) -> Tensor:
        """Score norms fp64 `(B,)` of signed images; differentiable in x."""
        scorer, unit = self._timed(scorer)
        total = torch.zeros_like(x)
        for j in range(1, self.levels + 1):
            step = round(j * self.horizon / self.levels)
            t = torch.full((len(x),), step if unit == 1 else step * unit)
            eps = noise.fold(step=j).normal(x, Stream.LEVEL) if self.noised else None

            def score(x: Tensor, t: Tensor = t, eps: Tensor | None = eps) -> list[Tensor]:
                x_t = x if eps is None else scorer.schedule.diffuse(x, t, eps)
                return [scorer.score(x_t, t)]

            total = total + memory.run(score, x, kind=self)[0]
        return (total / self.levels).double().flatten(1).norm(dim=1)

    def _timed(self, scorer: Denoiser) -> tuple[Denoiser, float]:
        """The network on the schedule in which the horizon counts, and its unit of time."""
        if self.continuous:
            return _on(scorer, LinearVP()), 1e-3
        return _on(scorer, DiscreteVP()), 1


@dataclass(frozen=True)
class Reweighted(NoiseLevel):
    """SSNI: a level per image from its score norm, snapped to the grid before diffusing.

    By default an attack takes t(x) for a constant (SSNI Algorithms 2 and 3); `LevelGradient` is
    how it may not.

    Args:
        base: t*.
        curve: f.
        reference: score norms of clean images.
        score_norm: how x's own is measured, as the reference's was.
        least: t(x) is raised to this. The paper's 0 leaves an image of a low norm unpurified; the
            released code purifies it by one step (1).
    """

    base: float
    curve: Curve
    reference: Reference
    score_norm: ScoreNorm = field(default_factory=ScoreNorm)
    least: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.base:
            raise ConfigError(f"Reweighted needs 0 <= least <= base, got {self.least}, {self.base}")
        norm, known = self.score_norm, self.reference
        ours = (norm.horizon, norm.levels, norm.continuous, norm.noised)
        theirs = (known.horizon, known.levels, known.continuous, known.noised)
        if ours != theirs:
            raise ConfigError(
                f"score_norm has (horizon, levels, continuous, noised) = {ours}, its reference has "
                f"{theirs}"
            )

    @property
    def configured(self) -> float:
        """The t* that f reweights."""
        return self.base

    @property
    def largest(self) -> float:
        """The curve's ceiling."""
        return self.curve.ceiling(self.base)

    @property
    def measure(self) -> ScoreNorm:
        """EPS."""
        return self.score_norm

    def check(self, nets: Networks) -> None:
        """The reference must come from the network that scores."""
        self.score_norm.check(nets.scorer)
        if not is_of(self.reference.scorer, nets.scorer):
            raise ConfigError(
                "the reference score norms were measured with another diffusion model "
                f"({self.reference.scorer[:12]}, now {fingerprint(nets.scorer)[:12]}); run adpur "
                "calibrate again"
            )

    def level(self, norm: Tensor, noise: Noise) -> Tensor:
        """t(x) = f(||EPS(x)||, t*)."""
        t = self.curve.reweight(norm, self.base, self.reference)
        return t.clamp_min(self.least) if self.least else t


def calibrate(
    images: Tensor, noise: Noise, scorer: Denoiser, score_norm: ScoreNorm, rows: int
) -> Reference:
    """Statistics of the score norms of clean [0, 1] `images` `(n, C, H, W)`, `rows` a call."""
    noise = noise.fold(source=Source.CALIBRATE)
    score_norm.check(scorer)

    def work(chunk: Tensor) -> list[Tensor]:
        return [score_norm(to_signed(images[chunk]), scorer, noise[chunk])]

    with torch.no_grad():
        (norms,) = in_calls(work, len(images), rows)
    return Reference(
        mean=norms.mean().item(),
        sd=norms.std().item(),
        low=norms.min().item(),
        high=norms.max().item(),
        count=len(norms),
        horizon=score_norm.horizon,
        levels=score_norm.levels,
        scorer=fingerprint(scorer),
        continuous=score_norm.continuous,
        noised=score_norm.noised,
    )


def _on(scorer: Denoiser, schedule: NoiseSchedule) -> Denoiser:
    """The network on a schedule of this kind: its own, if that is one."""
    return scorer if isinstance(scorer.schedule, type(schedule)) else scorer.on(schedule)
