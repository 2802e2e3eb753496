"""What robustness is left when the attacker knows the noise."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from adpur.diffusion.grid import Inclusive, Strided
from adpur.errors import ConfigError
from adpur.judging.judge import Verdict, judge
from adpur.judging.scoreboard import Outcome
from adpur.judging.statistics import Estimate, mean_accuracy
from adpur.papers.analysis import Analysis, Answer, Cell, purifying
from adpur.papers.charts.bars import Bars, bars
from adpur.papers.subject import Subject
from adpur.papers.sweeps import with_purifier
from adpur.purify.diffusion import Diffusion
from adpur.threat.knowledge import Knowledge, dw_both, dw_forward, white_box

CLEAN = "clean"


class Measured(NamedTuple):
    """Accuracies of a row, by attacker, and its measured network calls a prediction."""

    row: str
    nfe: float
    accuracy: dict[str, Estimate]


@dataclass(frozen=True)
class KnowledgeAccuracy(Analysis):
    """ADDT Figs. 2, 6 and 10: robust accuracy by what the attacker knows of the noise, over NFE.

    Percent right of the block's attack in white-box, DW-fwd (the noise that diffuses is known, all
    other fresh) and DW-both (all known; EOT is then one draw), beside clean images under fresh
    noise; intervals are 95 %,
    clustered by image. Where all noise is known it is the evaluation's, one draw an image and
    pool; elsewhere the config's N fresh draws. NFE is measured, not the paper's count. Figs. 2 and
    6 are the rows at their own stride, DDIM beside DDPM by `-- --vary '{ROW: {eta: [1, 0]}}'`;
    Fig. 10 is the same over `strides`.

    Costs three attacks of every image for each row and stride.

    Args:
        strides: times the row's grid skips; by default the row's own.
        seeds: pools of known noise, each attacked and judged on its own.
        block: attack block of the config; by default the first of each row.
    """

    strides: tuple[int, ...] = ()
    seeds: int = 1
    block: str | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1 or any(stride < 1 for stride in self.strides):
            raise ConfigError(
                f"expected seeds and strides >= 1, got {self.seeds} and {self.strides}"
            )

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """Four accuracies a row and stride."""
        found = [
            self._measured(one) for subject in purifying(subjects) for one in self._strided(subject)
        ]
        rows: list[tuple[Cell, ...]] = [
            (one.row, one.nfe, name, *(100 * v for v in e))
            for one in found
            for name, e in one.accuracy.items()
        ]
        heading = ("row", "NFE", "attacker", "percent right", "low", "high")
        return Answer(heading, rows, bars(_plots(found), "percent right"))

    def _strided(self, subject: Subject) -> Iterator[Subject]:
        """The row at each stride."""
        if not self.strides:
            yield subject
        for stride in self.strides:
            yield strided(subject, stride)

    def _measured(self, subject: Subject) -> Measured:
        asked = subject.defense, subject.images, subject.draws
        clean, nfe = _accuracy(judge(*asked))
        found = {CLEAN: clean}
        for name, knowledge in self._attackers().items():
            subject.tell(f"{subject.row}, {nfe:g} calls: {name}")
            trial = subject.knowing(subject.own(self.block), knowledge)
            found[name], _ = _accuracy(judge(*asked, trial))
        return Measured(subject.row, nfe, found)

    def _attackers(self) -> dict[str, Knowledge]:
        return {
            "white-box": white_box(),
            "DW-fwd": dw_forward(self.seeds),
            "DW-both": dw_both(self.seeds),
        }


def strided(subject: Subject, stride: int) -> Subject:
    """The row on a grid of another stride; its attacks follow."""
    old = subject.defense.purifier
    if not isinstance(old, Diffusion) or not isinstance(old.grid, Strided | Inclusive):
        raise ConfigError(f"expected a row of DDPM steps for strides, got {old}")
    purifier = replace(old, grid=replace(old.grid, stride=stride))
    return with_purifier(subject, purifier)


def _accuracy(verdict: Verdict) -> tuple[Estimate, float]:
    outcome = Outcome.of(verdict.scores)
    return mean_accuracy(outcome.correct), float(outcome.nfe.mean())


def _plots(found: Sequence[Measured]) -> list[Bars]:
    """The rows side by side; over NFE, a plot each."""
    names = list(dict.fromkeys(one.row for one in found))
    if len(names) == len(found):
        return [Bars("", [(one.row, one.accuracy) for one in found])]
    return [
        Bars(row, [(f"{m.nfe:g}", m.accuracy) for m in found if m.row == row], "NFE")
        for row in names
    ]
