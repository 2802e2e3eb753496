"""SSNI's t(x) as curves over the score norm."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.papers.analysis import Analysis, Answer
from adpur.papers.charts.marginal import Over, curves_over_samples
from adpur.papers.ssni.norms import score_norm
from adpur.papers.subject import Subject
from adpur.papers.sweeps import having, parts
from adpur.purify.levels.curve import Curve, Linear, Sigmoid
from adpur.purify.levels.level import Reweighted
from adpur.report.draw.plots import Series

POINTS = 201


@dataclass(frozen=True)
class Reweighting(Analysis):
    """SSNI section 4.3 and Appendix C: t(x) over the score norm, and the norms there are.

    Of rows with a computed t(x), a column each: the row's own curve (thick), the other kind with
    the same bias, and more where asked for; raw t(x), before it is snapped to the grid. Marked are
    t* and the reference norms' mean, minimum and maximum, beneath are the norms of the images,
    clean and as the block's attack leaves them, whose cost is all there is.

    Args:
        taus: of more sigmoids, in the row's unit: of the norm, or `relative` to its deviation.
        biases: b of more curves of both kinds.
        block: attack block of the config; by default the first of each row.
        eps: radius; by default the block's largest.
    """

    taus: tuple[float, ...] = ()
    biases: tuple[float, ...] = ()
    block: str | None = None
    eps: float | None = None

    def __post_init__(self) -> None:
        if min(self.taus, default=1) <= 0:
            raise ConfigError(f"expected taus > 0, got {self.taus}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A column of curves and a histogram for each row."""
        rows, columns = [], []
        for subject in having(subjects, Reweighted):
            level = parts(subject.defense.purifier, Reweighted)[0]
            norms = self._norms(subject)
            pooled = [*(v for part in norms.values() for v in part), *_marks(level).values()]
            at = torch.linspace(min(pooled), max(pooled), POINTS, dtype=torch.float64)
            curves = [_series(level, curve, at) for curve in self._curves(level.curve)]
            column = Over(subject.row, curves, _marks(level), level.base, norms)
            rows += [(subject.row, *line) for line in _lines(level, column)]
            columns.append(column)
        heading = ("row", "what", "name", "score norm", "t(x)")
        return Answer(heading, rows, curves_over_samples(columns, "score norm", "t(x)"))

    def _norms(self, subject: Subject) -> dict[str, list[float]]:
        images = subject.images
        found = images._replace(x=subject.attacked(subject.trial(self.block, self.eps)))
        shown = {"clean": images, "attacked": found}
        return {name: score_norm(subject, of).tolist() for name, of in shown.items()}

    def _curves(self, own: Curve) -> list[Curve]:
        """The row's own first."""
        bias = own.bias if isinstance(own, Linear | Sigmoid) else 0.0
        bent = own if isinstance(own, Sigmoid) else Sigmoid(1.0, bias, relative=True)
        more: list[Curve] = [own, bent, Linear(bias)]
        more += [replace(bent, tau=tau) for tau in self.taus]
        more += [c for b in self.biases for c in (replace(bent, bias=b), Linear(b))]
        return list(dict.fromkeys(more))


def _marks(level: Reweighted) -> dict[str, float]:
    """The reference norms a curve is fixed by."""
    return {"min": level.reference.low, "mean": level.reference.mean, "max": level.reference.high}


def _series(level: Reweighted, curve: Curve, at: Tensor) -> Series:
    t = curve.reweight(at, level.base, level.reference)
    return Series(_name(curve), at.tolist(), t.tolist(), aside=curve != level.curve)


def _name(curve: Curve) -> str:
    if isinstance(curve, Sigmoid):
        return f"sigmoid, tau {curve.tau:g}{' sd' if curve.relative else ''}, b {curve.bias:g}"
    return f"linear, b {curve.bias:g}" if isinstance(curve, Linear) else "constant"


def _lines(level: Reweighted, column: Over) -> Iterator[tuple[str, str, float, float]]:
    for one in column.curves:
        for norm, t in zip(one.x, one.y, strict=True):
            yield "curve", one.name, norm, t
    samples = {"reference": column.marks.items()} | {
        "image": [(name, norm) for name, norms in column.samples.items() for norm in norms]
    }
    for what, named in samples.items():
        for name, norm in named:
            at = torch.tensor([norm], dtype=torch.float64)
            own = level.curve.reweight(at, level.base, level.reference)
            yield what, name, norm, float(own)
