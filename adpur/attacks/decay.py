"""How an attack's step size falls with its iterations."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from adpur.errors import ConfigError


class Decay(ABC):
    """The share of the step size that is taken at each iteration."""

    @abstractmethod
    def share(self, iteration: int, steps: int) -> float:
        """Of iteration 0 .. steps-1."""


@dataclass(frozen=True)
class FixedStep(Decay):
    """1: DiffPure's BPDA+EOT, Lee & Kim, ScoreOpt, ADDT, SSNI, RevPure."""

    def share(self, iteration: int, steps: int) -> float:
        """See the class."""
        return 1.0


@dataclass(frozen=True)
class CosineDecay(Decay):
    """(1 + cos(pi k / steps)) / 2.

    >>> [round(CosineDecay().share(k, 4), 3) for k in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """

    def share(self, iteration: int, steps: int) -> float:
        """See the class."""
        return (1 + math.cos(math.pi * iteration / steps)) / 2


@dataclass(frozen=True)
class StepwiseDecay(Decay):
    """factor^m after m of the stated shares of the iterations: a tenth at 1/2 and 3/4 (Gowal et
    al. 2020, PGD-40).

    Args:
        factor: by which the step shrinks.
        at: shares of the iterations, each in (0, 1).

    >>> [round(StepwiseDecay().share(k, 4), 3) for k in range(4)]
    [1.0, 1.0, 0.1, 0.01]
    """

    factor: float = 0.1
    at: tuple[float, ...] = (0.5, 0.75)

    def __post_init__(self) -> None:
        object.__setattr__(self, "at", tuple(self.at))
        if not 0 < self.factor <= 1:
            raise ConfigError(f"StepwiseDecay factor must be in (0, 1], got {self.factor}")
        if not all(0 < share < 1 for share in self.at):
            raise ConfigError(f"StepwiseDecay at must be shares in (0, 1), got {list(self.at)}")

    def share(self, iteration: int, steps: int) -> float:
        """See the class."""
        passed: int = sum(iteration >= share * steps for share in self.at)
        return math.pow(self.factor, passed)
