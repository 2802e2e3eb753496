"""What more copies buy an attacker who does not know the noise."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from adpur.errors import ConfigError
from adpur.judging.judge import judge
from adpur.judging.scoreboard import Outcome
from adpur.judging.statistics import Estimate, mean_accuracy
from adpur.papers.addt.directions import DW_BOX, attacker, average, gradient
from adpur.papers.analysis import Analysis, Answer, Cell, purifying
from adpur.papers.charts.lines import Plot, panels
from adpur.papers.subject import Subject
from adpur.report.draw.plots import Series
from adpur.threat.compare import cosine
from adpur.threat.knowledge import white_box


class Bought(NamedTuple):
    """By a number of copies: accuracy, and cosines to DW-box of gradients and perturbations."""

    accuracy: Estimate
    gradient: Estimate
    perturbation: Estimate


@dataclass(frozen=True)
class EotDirection(Analysis):
    """ADDT Fig. 7: robust accuracy, and similarity to the DW-box direction, over EOT copies.

    Percent right under the block's white-box attack from the clean image with that many copies a
    step; then cosines, means over images with Student's interval: of the mean gradient over so many
    fresh draws at the clean image to the gradient on the one known draw; and of the attack's final
    perturbation to that of the DW-box attack. The paper calls both "gradient
    similarity" and "similarity between the attack directions", and does not say where it is taken.

    Costs an attack of every image with each number of copies.

    Args:
        copies: numbers of EOT copies.
        block: attack block of the config; by default the first of each row.
    """

    copies: tuple[int, ...] = (1, 2, 5, 10, 20)
    block: str | None = None

    def __post_init__(self) -> None:
        if not self.copies or min(self.copies) < 1:
            raise ConfigError(f"expected one or more copies >= 1, got {self.copies}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """Three curves a row."""
        rows: list[tuple[Cell, ...]] = []
        series: dict[str, list[Series]] = {}
        for subject in purifying(subjects):
            for name, at in self._told(subject).items():
                rows += [(subject.row, n, name, *e) for n, e in zip(self.copies, at, strict=True)]
                series.setdefault(name, []).append(self._curve(subject.row, at))
        heading = ("row", "EOT copies", "what", "mean", "low", "high")
        plots = [Plot("EOT copies", name, one, log=True) for name, one in series.items()]
        return Answer(heading, rows, panels(plots, 1.7))

    def _told(self, subject: Subject) -> dict[str, list[Estimate]]:
        """What is drawn, a value each number of copies."""
        bought = self._bought(subject)
        return {
            "percent right": [Estimate(*(100 * v for v in one.accuracy)) for one in bought],
            "cosine, gradients": [one.gradient for one in bought],
            "cosine, perturbations": [one.perturbation for one in bought],
        }

    def _bought(self, subject: Subject) -> list[Bought]:
        known = attacker(subject, self.block, *DW_BOX[1:])
        aim = gradient(known, subject.images, 1)
        moved = subject.attacked(known) - subject.images.x
        return [self._with(subject, copies, aim, moved) for copies in self.copies]

    def _with(self, subject: Subject, copies: int, aim: Tensor, moved: Tensor) -> Bought:
        """Against the known draw's gradient `aim` and final perturbation `moved`."""
        subject.tell(f"{subject.row}: {copies} copies")
        trial = attacker(subject, self.block, white_box(), copies)
        verdict = judge(subject.defense, subject.images, subject.draws, trial)
        return Bought(
            mean_accuracy(Outcome.of(verdict.scores).correct),
            average(cosine(gradient(trial, subject.images, copies).double(), aim.double()), -1, 1),
            average(
                cosine((verdict.adversarial - subject.images.x).double(), moved.double()), -1, 1
            ),
        )

    def _curve(self, name: str, at: Sequence[Estimate]) -> Series:
        middle, low, high = zip(*at, strict=True)
        return Series(name, list(self.copies), middle, low, high)
