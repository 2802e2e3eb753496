"""How a defence with randomness makes one prediction of several purifications."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adpur.errors import ConfigError
from adpur.types import ordered_mean


class Ensemble(ABC):
    """`votes` purifications with their own noise, combined into one prediction.

    A prediction of K votes is an evaluation draw like any other: N draws cost N K purifications.
    An attack's gradient looks at single votes.
    """

    votes: int

    @abstractmethod
    def combine(self, logits: Tensor) -> Tensor:
        """Logits `(B, classes)` from those of each vote `(votes, B, classes)`."""


@dataclass(frozen=True)
class Single(Ensemble):
    """One purification."""

    votes = 1

    def combine(self, logits: Tensor) -> Tensor:
        """Its logits."""
        return logits[0]


@dataclass(frozen=True)
class MeanLogits(Ensemble):
    """The mean of the logits: ScoreOpt's released protocol, with 15 and 150 votes."""

    votes: int = 15

    def __post_init__(self) -> None:
        _check(self)

    def combine(self, logits: Tensor) -> Tensor:
        """Mean over votes."""
        return ordered_mean(logits)


@dataclass(frozen=True)
class Majority(Ensemble):
    """The class most votes name: GNS, with 10. Ties go to the higher mean probability.

    The logits it returns are the shares of the votes, plus that probability scaled below one
    vote; an argmax over bare counts would give every tie to the lowest class.
    """

    votes: int = 10

    def __post_init__(self) -> None:
        _check(self)

    def combine(self, logits: Tensor) -> Tensor:
        """See the class."""
        shares = ordered_mean(F.one_hot(logits.argmax(2), logits.shape[2]).to(logits))
        return shares + 0.5 / self.votes * ordered_mean(torch.softmax(logits, 2))


def _check(ensemble: Ensemble) -> None:
    if not 1 <= ensemble.votes < 4096:
        raise ConfigError(
            f"{type(ensemble).__name__} votes must be in 1..4095, got {ensemble.votes}"
        )
