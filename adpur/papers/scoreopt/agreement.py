"""What an approximate gradient is worth beside the exact one (ScoreOpt's question)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from adpur.attacks.onestep import OneStep
from adpur.defense.gradient import Exact
from adpur.errors import ConfigError
from adpur.judging.judge import judge
from adpur.judging.statistics import Estimate, mean_accuracy
from adpur.judging.trial import AttackBlock, Trial
from adpur.papers.analysis import Analysis, Answer
from adpur.papers.charts.points import Dots, beside
from adpur.papers.ssni.norms import Spread, spread
from adpur.papers.subject import Subject
from adpur.threat.compare import both_gradients, cosine
from adpur.threat.trace import Trace

OWN = "block's gradient"


class Agreement(NamedTuple):
    """One gradient mode on one row.

    Args:
        row, block, gradient, norm, eps, images: what was asked.
        cosine: to the exact gradient at the clean images, median and quartiles over images.
        signs: share of pixels whose sign is that of the exact gradient.
        success: of the draws that are right on clean images, the share that the attack makes
            wrong: a mean over images, of those right in any draw, and its 95 % interval.
        exact: the same by the exact gradient, under the same keys.
    """

    row: str
    block: str
    gradient: str
    norm: str
    eps: float
    images: int
    cosine: Spread
    signs: float
    success: Estimate
    exact: Estimate


@dataclass(frozen=True)
class GradientAgreement(Analysis):
    """ScoreOpt section 4.2, Approximate Gradient: approximate gradients beside the exact one.

    Of every attack block, at its largest radius, on each row it names: the cosine of its gradient
    to the exact one at the clean images, and the share of right draws that one step along either,
    all of eps at once, makes wrong. The paper compares a whole PGD+EOT on a purifier of one
    optimisation step: `--whole=true` on a row varied to one step. A whole attack is run twice.

    Args:
        copies: draws averaged in a gradient, the same for both.
        whole: the block's own attack in place of one step.
        blocks: attack blocks of the config; by default all of each row.
    """

    copies: int = 10
    whole: bool = False
    blocks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ConfigError(f"expected copies >= 1, got {self.copies}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A line for each row and block."""
        found = [
            agreement(subject, block, self.copies, self.whole)
            for subject in subjects
            for block in self._of(subject)
        ]
        if not found:
            raise ConfigError("expected attack blocks to ask, found none in these rows")
        rows = [line for one in found for line in _lines(one)]
        heading = ("row", "block", "gradient", "norm", "eps", "images")
        figure = beside([f"{one.row}, {one.block}" for one in found], _panels(found))
        return Answer((*heading, "measure", "value", "low", "high"), rows, figure)

    def _of(self, subject: Subject) -> Sequence[AttackBlock]:
        return [subject.block(name) for name in self.blocks] if self.blocks else subject.blocks


def agreement(
    subject: Subject, block: AttackBlock, copies: int = 10, whole: bool = False
) -> Agreement:
    """Ask one block: gradients are means over `copies` draws, the same for both modes."""
    x, y, noise = subject.images
    gradient, eps, norm = block.gradient, block.largest, block.attack.norm
    trial = subject.at(block, eps)
    if not whole:
        trial = replace(trial, attack=OneStep(eps, norm, copies))
    one, other = both_gradients(trial.oracle(y, noise, trial.knowledge.each()[0]), x, copies)
    unattacked = Trial(subject.defense, knowledge=trial.knowledge)
    clean, found = (_right(subject, t) for t in (unattacked, trial))
    exact = found if gradient.exact else _right(subject, replace(trial, gradient=Exact()))
    return Agreement(
        subject.row, block.name, type(gradient).__name__, type(norm).__name__, eps, len(x),
        _told(cosine(one, other)),
        float((one.sign() == other.sign())[other != 0].double().mean()),
        _lost(clean, found), _lost(clean, exact),
    )  # fmt: skip


def _right(subject: Subject, trial: Trial) -> Tensor:
    """Whether each draw of each image is classified right `(B, N)`."""
    trace = Trace(len(subject.images.x), lambda text: subject.tell(f"{subject.row}: {text}"))
    return judge(subject.defense, subject.images, subject.draws, trial, trace).correct


def _told(values: Tensor) -> Spread:
    """Of the images that have gradients."""
    known = values[values.isfinite()]
    return spread(known) if len(known) else Spread(*[float("nan")] * 3)


def _lost(before: Tensor, after: Tensor) -> Estimate:
    """Of the draws that were right, the share that is not; NaN where none was."""
    some = before.any(1)
    share = (before & ~after)[some].double().sum(1) / before[some].double().sum(1)
    if not len(share):
        return Estimate(*[float("nan")] * 3)
    return mean_accuracy(share.numpy()[:, None])


def _lines(one: Agreement) -> list[tuple[str | int | float, ...]]:
    place = one[:6]
    return [
        (*place, "cosine, median and quartiles", *_middle(one.cosine)),
        (*place, "equal signs", one.signs, "", ""),
        (*place, "success", *one.success),
        (*place, "success of the exact gradient", *one.exact),
    ]


def _panels(found: Sequence[Agreement]) -> list[Dots]:
    """Cosine, and both successes in per cent."""
    success = [[100 * v for v in one.success] for one in found]
    exact = [[100 * v for v in one.exact] for one in found]
    both = {OWN: success, "exact gradient": exact}
    return [
        Dots("cosine", {OWN: [_middle(one.cosine) for one in found]}, (0.0, 1.0)),
        Dots("success, %", both, (0.0, 100.0)),
    ]


def _middle(spread: Spread) -> tuple[float, float, float]:
    return spread.middle, spread.low, spread.high
