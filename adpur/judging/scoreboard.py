"""What is known of one column: the correctness of every image on every evaluation draw."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpur.judging import statistics
from adpur.judging.statistics import Estimate

CLEAN = "clean"


class Column(NamedTuple):
    """A row of the table under one attack block and radius; eps is 0 where attack is clean."""

    row: str
    attack: str = CLEAN
    eps: float = 0.0

    def __str__(self) -> str:
        return f"{self.row} / {self.attack}" + (f" / {self.eps:g}" if self.attack != CLEAN else "")

    @property
    def clean(self) -> bool:
        """Whether no attack was made; a replay block has clean columns of its own noise."""
        return self.attack.startswith(CLEAN)


@dataclass(frozen=True)
class Score:
    """One image in one column: the deterministic part of a record.

    Of N evaluation draws: `predictions`, `margin`, `t` (one list of stages), `snapped`,
    `score_norm`; `mean_logits` is the prediction of the mean logits of the first 1, 2, ... N.
    `nfe` is the mean of measured diffusion calls, `size` the norm of the perturbation.
    Of the selection draws that choose between attacks: `strength` (`Oracle.strength`).
    Of the attack: the `cosine` of its gradient to the exact one, where asked for; the mean `loss`
    at each gradient query; rows differentiated (`gradients`) and evaluated (`queries`); the share
    of queries whose gradient was `zero`; the `agreement` of halves of its EOT copies; the share of
    right answers it `claimed` itself; how far `outside` ball or range its image lay before it was
    projected.
    """

    index: int
    label: int
    predictions: list[int]
    margin: list[float]
    t: list[list[float]]
    snapped: list[list[float]]
    score_norm: list[float | None]
    nfe: float
    size: float
    cosine: float | None = None
    mean_logits: list[int] = field(default_factory=list)
    strength: float = 0.0
    loss: list[float] = field(default_factory=list)
    gradients: int = 0
    queries: int = 0
    zero: float | None = None
    agreement: float | None = None
    claimed: float | None = None
    outside: float = 0.0

    @property
    def correct(self) -> list[bool]:
        """Which of the N evaluation draws are right."""
        return [predicted == self.label for predicted in self.predictions]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Outcome(NamedTuple):
    """All images of a column, sorted by dataset row: arrays over `(n,)` or `(n, N)`."""

    scores: list[Score]
    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
    mean_logits: NDArray[np.int64]
    t: NDArray[np.float64]
    score_norm: NDArray[np.float64]
    nfe: NDArray[np.float64]
    cosine: NDArray[np.float64]

    @classmethod
    def of(cls, scores: Iterable[Score]) -> "Outcome":
        """Gather scores, each image once.

        >>> score = Score(3, 1, [1, 0], [0.5, -1.0], [], [], [None, None], 0.0, 0.0)
        >>> Outcome.of([score, score]).summary()["acc"]
        0.5
        """
        once = [s for _, s in sorted({s.index: s for s in scores}.items())]
        return cls(
            once,
            np.array([s.index for s in once]),
            np.array([s.label for s in once]),
            np.array([s.predictions for s in once]),
            np.array([s.mean_logits for s in once], dtype=np.int64),
            np.array([[t[0] if t else np.nan for t in s.t] or [np.nan] for s in once]),
            np.array([[np.nan if n is None else n for n in s.score_norm] for s in once]),
            np.array([s.nfe for s in once]),
            np.array([np.nan if s.cosine is None else s.cosine for s in once]),
        )

    @classmethod
    def union(cls, outcomes: "Sequence[Outcome]") -> "Outcome":
        """The attacker who has several attacks and takes, for each image, the best of them.

        Best on the selection draws; what is reported are the evaluation draws, which chose
        nothing: a minimum over the reported draws would fall by luck alone. Images that some
        attack lacks are left out; of equals the first stands. It costs what all of them cost, and
        what one of them claims is not its own.
        """
        by_image = [{s.index: s for s in outcome.scores} for outcome in outcomes]
        common = set.intersection(*(set(scores) for scores in by_image))
        candidates = ([scores[i] for scores in by_image] for i in common)
        return cls.of(_best(scores) for scores in candidates)

    @property
    def correct(self) -> NDArray[np.float64]:
        """The `(n, N)` matrix every estimand is read from."""
        return np.array([score.correct for score in self.scores], dtype=np.float64)

    @property
    def verdicts(self) -> dict[str, NDArray[np.bool_]]:
        """Whether each image passes under every estimand that is yes or no, `(n,)` each."""
        told: dict[str, NDArray[np.bool_]] = {
            "worst_of_n": np.asarray(self.correct.all(axis=1)),
            "majority": statistics.majority(self.predictions, self.labels),
        }
        if self.mean_logits.size:
            told["mean_logits"] = self.mean_logits[:, -1] == self.labels
        return told

    def estimates(self) -> dict[str, Estimate]:
        """Every estimand with its interval; `acc` is the primary one.

        What an attack `claimed` itself stands beside them, where it did, for its images.
        """
        told = {"acc": statistics.mean_accuracy(self.correct)}
        for name, right in self.verdicts.items():
            told[name] = statistics.wilson(int(right.sum()), len(right))
        if claims := [s.claimed for s in self.scores if s.claimed is not None]:
            told["claimed"] = statistics.mean_accuracy(np.array(claims)[:, None])
        return told

    def summary(self) -> dict[str, float]:
        """Every estimand with its interval, in [0, 1], and what it cost."""
        flat = {"images": float(len(self.images)), "draws": float(self.predictions.shape[1])}
        for name, estimate in self.estimates().items():
            flat |= {name: estimate.value, f"{name}_lo": estimate.low, f"{name}_hi": estimate.high}
        return flat | {
            "nfe": float(self.nfe.mean()),
            "t_mean": _mean(self.t),
            "compute": self.compute,
        }

    @property
    def compute(self) -> float:
        """Rows the attack had differentiated or evaluated, per image."""
        return float(np.mean([s.gradients + s.queries for s in self.scores]))


def _best(scores: list[Score]) -> Score:
    return replace(
        max(scores, key=lambda s: s.strength),
        gradients=sum(s.gradients for s in scores),
        queries=sum(s.queries for s in scores),
        claimed=None,
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))
