"""SSNI's reason for a t* of each image's own: what is right at which t*."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from adpur.errors import ConfigError
from adpur.judging.statistics import mean_accuracy
from adpur.judging.trial import Examples
from adpur.papers.analysis import Analysis, Answer, Cell, only
from adpur.papers.charts.images import Counts, Strip, Tile, strips
from adpur.papers.ssni.levels import AtLevel, at_level, own_levels
from adpur.papers.subject import Subject
from adpur.papers.sweeps import around, having
from adpur.purify.diffusion import Diffusion
from adpur.threat.knowledge import Knowledge

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0)
"""Of the row's own t*."""
HEADING = ("row", "image", "label", "t*", "measure", "value", "low", "high")


@dataclass(frozen=True)
class LevelStrips(Analysis):
    """SSNI Fig. 1: images diffused to several t*, purified from there, and which t* is right.

    Of one row, with each of its noise levels set to t*: an image is right at a t* where more than
    half of its evaluation draws are. Beneath: for how many images each t* is the smallest right
    one, and how many draws are right at that t* shared by all. Attacked images were found against
    the row as configured, as the paper's against t* 100: at another t* they are a transfer, and
    that some t* is right says nothing of an attacker who expects it. What images gain by a t* of
    their own is told by other draws than it was chosen on: half of the draws choose, for each
    image, the t* at which most are right (the smallest of several), the other half score it. The
    margin is the best other logit less the label's, negative where right. Costs one attack and one
    evaluation for each t*.

    Args:
        times: t*, in the unit of the row's grid; by default shares 0 to 2 of the row's own.
        shown: how many images are drawn, from that with the smallest right t* to one with the
            largest or none.
        clean: of clean images.
        block: attack block of the config; by default the first of the row.
        eps: radius; by default the block's largest.
    """

    times: tuple[float, ...] = ()
    shown: int = 4
    clean: bool = False
    block: str | None = None
    eps: float | None = None

    def __post_init__(self) -> None:
        if self.shown < 1 or min(self.times, default=0) < 0:
            raise ConfigError(f"expected shown >= 1 and t* >= 0, got {self.shown}, {self.times}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """Strips of some images, numbers of all."""
        first = only(having(subjects, Diffusion))
        images, known = self._inputs(first)
        times = sorted(set(self.times)) or around(first, SHARES)
        found = [at_level(first, images, known, t) for t in times]
        own = own_levels(first, images, known)
        smallest = [_smallest(found, i) for i in range(len(images.x))]
        lines = [
            strip
            for i in _spread(smallest, self.shown)
            for strip in _strips(first, images, found, own, i)
        ]
        heads = ["input", *(f"{at.t:g}" for at in found)]
        figure = strips(lines, heads, "t*", _counts(found, smallest))
        return Answer(HEADING, _lines(first, found, own, smallest), figure)

    def _inputs(self, subject: Subject) -> tuple[Examples, Knowledge]:
        if self.clean:
            return subject.images, Knowledge()
        trial = subject.trial(self.block, self.eps)
        known = trial.knowledge.each()[0]
        return subject.images._replace(x=subject.attacked(trial)), known


def _smallest(found: Sequence[AtLevel], i: int) -> float:
    """The smallest t* at which image i is right; infinite where none is."""
    return min((at.t for at in found if at.right[i]), default=float("inf"))


def own_choice(found: Sequence[AtLevel]) -> NDArray[np.float64]:
    """Of the second half of each image's draws, which are right at the t* the first half chose."""
    draws = np.stack([at.draws for at in found])
    half = draws.shape[2] // 2
    best = draws[:, :, :half].mean(axis=2).argmax(axis=0)
    scored: NDArray[np.float64] = draws[best, np.arange(draws.shape[1]), half:]
    return scored


def _spread(smallest: Sequence[float], count: int) -> list[int]:
    """Images evenly spaced in the order of their smallest right t*."""
    order = np.argsort(smallest, kind="stable")
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return [int(i) for i in order[places]]


def _strips(
    subject: Subject, images: Examples, found: Sequence[AtLevel], own: Sequence[float], i: int
) -> list[Strip]:
    index, label = int(images.noise.index[i]), int(images.y[i])
    level = "" if own[i] != own[i] else f"\nt(x) {own[i]:.3g}"
    seen, clean = images.x[i].cpu(), subject.images.x[i].cpu()
    attacked = not torch.equal(seen, clean)
    first = Tile(seen, "attacked" if attacked else "clean")
    right = [Tile(at.purified[i], f"{100 * at.share[i]:.0f} %", at.right[i]) for at in found]
    return [
        Strip(f"image {index}\nlabel {label}", [first, *(Tile(at.diffused[i]) for at in found)]),
        Strip(f"purified{level}", [Tile(clean, "clean") if attacked else None, *right]),
    ]


def _counts(found: Sequence[AtLevel], smallest: Sequence[float]) -> Counts:
    never = sum(t == float("inf") for t in smallest)
    return Counts(
        [100 * _first(smallest, at.t) for at in found], "smallest right t*",
        [mean_accuracy(at.draws) for at in found], "draws right at this t*",
        f"{len(smallest)} images, {never} right at no t*; at a t* of each\nimage's own "
        f"{100 * mean_accuracy(own_choice(found)).value:.0f} % of the draws that did not choose it",
    )  # fmt: skip


def _first(smallest: Sequence[float], t: float) -> float:
    """For what share of images t is the smallest right t*."""
    return sum(one == t for one in smallest) / len(smallest)


def _lines(
    subject: Subject, found: Sequence[AtLevel], own: Sequence[float], smallest: Sequence[float]
) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    labels = zip(subject.images.noise.index.tolist(), subject.images.y.tolist(), strict=True)
    for i, place in enumerate(labels):
        image = (subject.row, *place)
        for at in found:
            rows.append((*image, at.t, "share of draws right", float(at.share[i]), "", ""))
            rows.append((*image, at.t, "margin", float(at.margin[i]), "", ""))
        least = smallest[i] if smallest[i] < float("inf") else "none"
        rows.append((*image, "", "smallest right t*", least, "", ""))
        if own[i] == own[i]:
            rows.append((*image, "", "t(x)", own[i], "", ""))
    for at in found:
        every = (subject.row, "all", "", at.t)
        percent = (100 * v for v in mean_accuracy(at.draws))
        rows.append((*every, "percent of draws right", *percent))
        rows.append((*every, "percent of images first right", 100 * _first(smallest, at.t), "", ""))
    chosen = (100 * v for v in mean_accuracy(own_choice(found)))
    rows.append((subject.row, "all", "", "own", "percent of other draws right", *chosen))
    never = 100 * _first(smallest, float("inf"))
    return [*rows, (subject.row, "all", "", "", "percent of images never right", never, "", "")]
