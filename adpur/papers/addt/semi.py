"""One perturbation against one draw of the noise, and against many."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.judging.statistics import Estimate
from adpur.keyed.noise import Stream
from adpur.papers.addt.directions import average, gradient, losses
from adpur.papers.analysis import Analysis, Answer, Cell, purifying
from adpur.papers.charts.lines import Plot, panels
from adpur.papers.subject import Subject
from adpur.report.draw.plots import Series
from adpur.threat.ball import Linf
from adpur.threat.knowledge import dw_semi


@dataclass(frozen=True)
class SemiLoss(Analysis):
    """ADDT Fig. 8: loss at x + k sigma for k from -16 to 16, sigma made for one draw or for many.

    sigma is FGSM's step, eps times the sign of the mean gradient at the clean image: over the one
    known draw (DW-box), or over `pool` known draws (DW-semi). The loss is the cross-entropy of the
    deployed defence on the draws sigma was made for, a mean over them and over images, with
    Student's interval over images. The control has random signs, its loss that of the one draw
    (not said in the paper): at k = 0 it and DW-box agree. Points outside [0, 1] are brought to the
    range; sigma itself is not.

    Costs `points` x (pool + 2) purifications of every image.

    Args:
        eps: of sigma; by default an eighth of the block's largest radius, which is the paper's
            1/255 beside its attacks of 8/255.
        pool: known draws of DW-semi.
        reach: the largest k.
        points: how many k, evenly spaced; odd, so that k = 0 is one.
        block: attack block of the config; by default the first of each row.
    """

    eps: float | None = None
    pool: int = 128
    reach: float = 16.0
    points: int = 33
    block: str | None = None

    def __post_init__(self) -> None:
        if self.points < 3 or self.points % 2 == 0 or self.pool < 2 or not self.reach > 0:
            raise ConfigError(
                "expected odd points >= 3, pool >= 2 and reach > 0, got "
                f"{self.points}, {self.pool}, {self.reach}"
            )
        if self.eps is not None and not self.eps > 0:
            raise ConfigError(f"expected eps > 0, got {self.eps}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """Three curves a row."""
        k = torch.linspace(-self.reach, self.reach, self.points, dtype=torch.float64)
        rows: list[tuple[Cell, ...]] = []
        plots = []
        for subject in purifying(subjects):
            series = []
            for name, at in self._curves(subject, k).items():
                rows += [(subject.row, name, *cell) for cell in _cells(k, at)]
                middle, low, high = zip(*at, strict=True)
                series.append(Series(name, k.tolist(), middle, low, high))
            plots.append(Plot("k", f"loss, {subject.row}", series))
        heading = ("row", "perturbation", "k", "loss", "low", "high")
        return Answer(heading, rows, panels(plots))

    def _curves(self, subject: Subject, k: Tensor) -> dict[str, list[Estimate]]:
        eps = self.eps if self.eps is not None else self._eighth(subject)
        found = {}
        for name, pool in (("DW-box", 1), (f"DW-semi-{self.pool}", self.pool)):
            trial = subject.knowing(subject.own(self.block), dw_semi(pool))
            sigma = eps * Linf().direction(gradient(trial, subject.images, pool))
            found[name] = self._along(subject, sigma, k, pool)
        found["random signs"] = self._along(subject, eps * signs(subject), k, 1)
        return found

    def _eighth(self, subject: Subject) -> float:
        block = subject.block(self.block)
        if not isinstance(block.attack.norm, Linf):
            raise ConfigError(
                f"expected --eps, a step of every pixel, since the radii of {block.name!r} are not "
                f"of Linf but of {block.attack.norm}"
            )
        return block.largest / 8

    def _along(self, subject: Subject, sigma: Tensor, k: Tensor, pool: int) -> list[Estimate]:
        """Mean losses over the images at every k."""
        x, trial = subject.images.x, subject.knowing(subject.own(self.block), dw_semi(pool))
        moved = torch.stack([(x + float(v) * sigma).clamp(0, 1) for v in k])
        told = f"{subject.row}, {pool} known draws"
        at = losses(trial, subject.images, moved, pool, lambda t: subject.tell(f"{told}: {t}"))
        return [average(v, least=0) for v in at]


def signs(subject: Subject) -> Tensor:
    """-1 or 1 at random, of the images' shape, keyed as an attack's start is."""
    x, _, noise = subject.images
    return (noise.uniform(x, Stream.ATTACK) - 0.5).sign()


def _cells(k: Tensor, at: Sequence[Estimate]) -> list[tuple[float, ...]]:
    return [(v, *e) for v, e in zip(k.tolist(), at, strict=True)]
