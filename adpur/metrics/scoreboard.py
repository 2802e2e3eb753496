"""What is known of one column: the correctness of every image on every evaluation draw."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adpur.metrics import statistics

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

    `predictions`, `margin`, `t` (one list of stages), `snapped` and `score_norm` have an entry
    for each of N evaluation draws; `size` is the norm of the perturbation, `cosine` that of the
    attack's gradient to the exact one, where it was asked for.
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

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Outcome(NamedTuple):
    """All images of a column, sorted by dataset row: arrays over `(n,)` or `(n, N)`."""

    images: NDArray[np.int64]
    labels: NDArray[np.int64]
    predictions: NDArray[np.int64]
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
            np.array([s.index for s in once]),
            np.array([s.label for s in once]),
            np.array([s.predictions for s in once]),
            np.array([[t[0] if t else np.nan for t in s.t] or [np.nan] for s in once]),
            np.array([[np.nan if n is None else n for n in s.score_norm] for s in once]),
            np.array([s.nfe for s in once]),
            np.array([np.nan if s.cosine is None else s.cosine for s in once]),
        )

    @property
    def correct(self) -> NDArray[np.float64]:
        """The `(n, N)` matrix every estimand is read from."""
        return (self.predictions == self.labels[:, None]).astype(np.float64)

    def summary(self) -> dict[str, float]:
        """Every estimand with its interval, in [0, 1]."""
        estimates = {
            "acc": statistics.mean_accuracy(self.correct),
            "worst_of_n": statistics.worst_of(self.correct),
            "majority": statistics.majority_of(self.predictions, self.labels),
        }
        flat = {"images": float(len(self.images)), "draws": float(self.predictions.shape[1])}
        for name, estimate in estimates.items():
            flat |= {name: estimate.value, f"{name}_lo": estimate.low, f"{name}_hi": estimate.high}
        return flat | {"nfe": float(self.nfe.mean()), "t_mean": _mean(self.t)}


def _mean(values: NDArray[np.float64]) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))
