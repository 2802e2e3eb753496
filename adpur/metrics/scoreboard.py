"""What is known of one column: the correctness of every image on every evaluation draw."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric

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
    for each of N evaluation draws; `size` is the norm of the perturbation.
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


class Scoreboard(Metric):
    """A torchmetrics metric that gathers one column over processes, without repeats.

    >>> board = Scoreboard()
    >>> board.update([Score(3, 1, [1, 0], [0.5, -1.0], [], [], [None, None], 0.0, 0.0)])
    >>> board.compute().summary()["acc"]
    0.5
    """

    full_state_update = False
    numbers: list[Tensor]
    predictions: list[Tensor]
    levels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("numbers", "predictions", "levels"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, scores: list[Score]) -> None:
        """Add images."""
        for s in scores:
            self.numbers.append(torch.tensor([[s.index, s.label, s.nfe]], dtype=torch.float64))
            self.predictions.append(torch.tensor([s.predictions]))
            norms = [torch.nan if n is None else n for n in s.score_norm]
            first = [t[0] if t else torch.nan for t in s.t] or [torch.nan] * len(norms)
            self.levels.append(torch.tensor([[first, norms]], dtype=torch.float64))

    def compute(self) -> Outcome:
        """Everything, once per image."""
        numbers, predictions, levels = (
            torch.cat(list(part)).cpu().numpy() if isinstance(part, list) else part.cpu().numpy()
            for part in (self.numbers, self.predictions, self.levels)
        )
        index, first = np.unique(numbers[:, 0].astype(np.int64), return_index=True)
        numbers, predictions, levels = numbers[first], predictions[first], levels[first]
        labels = numbers[:, 1].astype(np.int64)
        return Outcome(index, labels, predictions, levels[:, 0], levels[:, 1], numbers[:, 2])


def _mean(values: NDArray[np.float64]) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmean(values))
