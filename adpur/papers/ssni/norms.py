"""SSNI's reason for t(x): what the norm of the score says of an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adpur.diffusion.schedule import DiscreteVP
from adpur.errors import ConfigError
from adpur.judging.trial import Examples
from adpur.keyed.noise import Stream
from adpur.keyed.rows import in_calls
from adpur.papers.analysis import Analysis, Answer, purifying
from adpur.papers.charts.lines import Plot, panels
from adpur.papers.subject import Subject
from adpur.purify.levels.level import ScoreNorm
from adpur.report.draw.plots import Series
from adpur.types import to_signed


class Spread(NamedTuple):
    """Of images at one place of an axis: median and quartiles."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class NormOverEps(Analysis):
    """SSNI Fig. 4: score norm of clean images, and of attacked ones over the radius.

    By the score norm of each row's t(x); ||EPS(x)|| over 20 steps where a row has none. Each
    radius is a search of its own.

    Args:
        eps: radii; by default five equal steps to the block's largest.
        block: attack block of the config; by default the first of each row.
    """

    eps: tuple[float, ...] = ()
    block: str | None = None

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """Median and quartiles over the images, a curve a row."""
        rows, drawn = [], []
        for subject in purifying(subjects):
            most = max(subject.block(self.block).radii)
            radii = self.eps or tuple(most * k / 5 for k in range(6))
            at = [spread(self._norms(subject, eps)) for eps in radii]
            rows += [(subject.row, eps, *s) for eps, s in zip(radii, at, strict=True)]
            drawn.append(banded(subject.row, radii, at))
        heading = ("row", "eps", "lower quartile", "median", "upper quartile")
        return Answer(heading, rows, panels([Plot("eps", "score norm", drawn)], 2.4))

    def _norms(self, subject: Subject, eps: float) -> Tensor:
        images = subject.images
        found = subject.attacked(subject.trial(self.block, eps)) if eps else images.x
        known = subject.block(self.block).knowledge.each()[0]
        keys = known.evaluate(images.noise, 1)[slice(len(found))]
        return score_norm(subject, images._replace(x=found, noise=keys))


@dataclass(frozen=True)
class NormOverTime(Analysis):
    """SSNI Proposition 1: score norm of diffused images over t, clean and attacked.

    ||score(x_t)|| times sigma_t, which is sqrt(dimension) wherever the network takes x_t for
    noise alone: what is left of the proposition once the noise itself is divided out.

    Args:
        times: how many t, evenly spaced up to `end`.
        end: the last t, in the unit of the network's schedule; by default all of it.
        block: attack block of the config; by default the first of each row.
    """

    times: int = 20
    end: float | None = None
    block: str | None = None

    def __post_init__(self) -> None:
        if self.times < 2 or (self.end is not None and self.end <= 0):
            raise ConfigError(f"expected times >= 2 and end > 0, got {self.times}, {self.end}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """Medians and quartiles, a curve for clean images and one for attacked, of each row."""
        rows, norms, scaled = [], [], []
        for subject in purifying(subjects):
            net = subject.defense.networks.denoiser
            schedule, end = net.schedule, self.end or net.max_time
            if end > schedule.end:
                raise ConfigError(f"expected end in 0..{schedule.end:g} of its schedule, got {end}")
            net.check_time(end, "norm-time")
            t = torch.linspace(end / self.times, end, self.times, dtype=torch.float64)
            if isinstance(schedule, DiscreteVP):
                t = torch.unique(t.round().clamp_min(1))
            images = subject.images
            found = images._replace(x=subject.attacked(subject.trial(self.block)))
            for name, shown in (("clean", images), ("attacked", found)):
                at = [over_time(subject, shown, float(v)) for v in t]
                sigma = schedule.sigma(t).tolist()
                raw = [spread(v) for v in at]
                unit = [spread(v * s) for v, s in zip(at, sigma, strict=True)]
                rows += [(subject.row, name, float(v), *s) for v, s in zip(t, raw, strict=True)]
                norms.append(banded(f"{subject.row}, {name}", t.tolist(), raw))
                scaled.append(banded(f"{subject.row}, {name}", t.tolist(), unit))
        heading = ("row", "images", "t", "lower quartile", "median", "upper quartile")
        plots = [
            Plot("t", "score norm", norms, log_y=True),
            Plot("t", "sigma times score norm", scaled),
        ]
        return Answer(heading, rows, panels(plots))


def score_norm(subject: Subject, images: Examples) -> Tensor:
    """Score norms `(B,)` as the row measures them."""
    purifier, nets = subject.defense.purifier, subject.defense.networks
    measure = purifier.measure or ScoreNorm()
    seen = to_signed(purifier.seen(images.x))
    with torch.no_grad():
        (norm,) = in_calls(
            lambda i: [measure(seen[i], nets.scorer, images.noise[i])],
            len(seen), subject.defense.rows,
        )  # fmt: skip
    return norm.cpu()


def over_time(subject: Subject, images: Examples, t: float) -> Tensor:
    """||score(x_t)|| `(B,)` of images diffused to t."""
    purifier, denoiser = subject.defense.purifier, subject.defense.networks.denoiser
    x = to_signed(purifier.seen(images.x))
    at = torch.full((len(x),), t, dtype=torch.float64)
    x_t = denoiser.schedule.diffuse(x, at, images.noise.normal(x, Stream.FORWARD))

    def work(i: Tensor) -> list[Tensor]:
        return [denoiser.score(x_t[i], at[i]).double().flatten(1).norm(dim=1)]

    with torch.no_grad():
        return in_calls(work, len(x), subject.defense.rows)[0].cpu()


def spread(values: Tensor) -> Spread:
    """Quartiles of a sample."""
    found: NDArray[np.float64] = np.quantile(values.double().numpy(), (0.25, 0.5, 0.75))
    return Spread(*found.tolist())


def banded(name: str, x: Sequence[float], at: Sequence[Spread]) -> Series:
    """Medians with quartiles as arms."""
    low, middle, high = zip(*at, strict=True)
    return Series(name, list(x), middle, low, high)
