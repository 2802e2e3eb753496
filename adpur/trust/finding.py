"""What a check is asked of, and what it says."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple

from adpur.defense.defense import Defense
from adpur.judging.arithmetic import Computed
from adpur.judging.judge import Draws
from adpur.judging.scoreboard import Outcome
from adpur.judging.trial import Examples, Trial


class Grade(StrEnum):
    """`fail` stops the run, `warn` marks the row in every table, `info` is a label."""

    PASS = "pass"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"


class Level(StrEnum):
    """How much is checked; `quick` is meant to cost under a tenth of the run."""

    NONE = "none"
    QUICK = "quick"
    FULL = "full"


class Measured(NamedTuple):
    """A grade, and the number behind it in words."""

    grade: Grade
    text: str


def graded(bad: bool, text: str, otherwise: Grade = Grade.WARN) -> Measured:
    """`otherwise` if `bad`, else a pass."""
    return Measured(otherwise if bad else Grade.PASS, text)


@dataclass(frozen=True)
class Finding:
    """One line of the report; `means` and `advice` are empty where nothing is wrong."""

    check: str
    title: str
    row: str
    attack: str
    measured: str
    grade: Grade
    means: str = ""
    advice: str = ""

    @property
    def warns(self) -> bool:
        """Whether it marks its row in every table."""
        return self.grade in (Grade.WARN, Grade.FAIL)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Evidence(NamedTuple):
    """One attack block on one row, at its largest radius, and a few images to try things on.

    `deployed` is what is judged; a transfer's `trial` looks at another defence.
    """

    row: str
    block: str
    trial: Trial
    deployed: Defense
    images: Examples
    draws: Draws


class Recorded(NamedTuple):
    """What the run recorded of a block on a row.

    `clean` is under the block's own knowledge; `attacked` goes by radius; `others` are the row's
    other blocks at the largest radius, in the same norm and with the same knowledge. `computed`
    says on whose arithmetic the case's columns were computed.
    """

    clean: Outcome
    attacked: Mapping[float, Outcome]
    others: Mapping[str, Outcome]
    computed: Computed = Computed({})

    @property
    def largest(self) -> Outcome:
        """At the largest radius."""
        return self.attacked[max(self.attacked)]


def climbs(seen: Evidence, recorded: Recorded) -> bool:
    """Whether the attack follows the exact gradient of what is deployed, at some radius above 0.

    Baselines, query attacks, transfers and approximations are not expected to be the strongest.
    """
    own = seen.trial.gradient.exact and seen.trial.defense is seen.deployed
    asked = any(score.gradients for score in recorded.largest.scores)
    return own and asked and max(recorded.attacked) > 0


class Check(ABC):
    """A question with an answer; leaves have no state.

    `check` is its number in the report, `means` what a bad answer means, `advice` what to do.
    """

    check: ClassVar[str]
    title: ClassVar[str]
    level: ClassVar[Level] = Level.QUICK
    means: ClassVar[str] = ""
    advice: ClassVar[str] = ""

    def found(self, seen: Evidence, measured: Measured) -> Finding:
        """The line of the report."""
        bad = measured.grade in (Grade.WARN, Grade.FAIL)
        told = (self.means, self.advice) if bad else ("", "")
        where = (seen.row, seen.block)
        return Finding(self.check, self.title, *where, measured.text, measured.grade, *told)


class Probe(Check):
    """Asked before the run, of a few images: what is broken stops before hours are spent."""

    @abstractmethod
    def probe(self, seen: Evidence) -> Measured:
        """The answer."""


class Review(Check):
    """Asked after the run, of its records, perhaps with attacks on a few images more."""

    @abstractmethod
    def review(self, seen: Evidence, recorded: Recorded) -> Measured:
        """The answer."""
