"""What ScoreOpt's optimisation lowers."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from adpur.errors import ConfigError


class Objective(ABC):
    """What the optimisation lowers: ||D(x_t) - x||^2 plus a second term, summed over an image.

    Sums, not the released code's batch mean, keep Adam's state free of batch mates.
    """

    @abstractmethod
    def second(
        self, x: Tensor, start: Tensor, denoised: Tensor, other: Callable[[], Tensor]
    ) -> Tensor | float:
        """The second term: `denoised` is D(x_t), `other()` is D(start + sigma e_2), one call."""


@dataclass(frozen=True)
class Diff(Objective):
    """No second term (ScoreOpt Eq. 6): what the released code runs."""

    def second(
        self, x: Tensor, start: Tensor, denoised: Tensor, other: Callable[[], Tensor]
    ) -> Tensor | float:
        """Nothing."""
        return 0.0


@dataclass(frozen=True)
class Anchored(Objective):
    """lambda ||x - x_a||^2: the paper's MSE loss (Eq. 7)."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        _check(self.weight)

    def second(
        self, x: Tensor, start: Tensor, denoised: Tensor, other: Callable[[], Tensor]
    ) -> Tensor | float:
        """The distance to the input."""
        return self.weight * ((x - start) ** 2).sum()


@dataclass(frozen=True)
class SR(Objective):
    """lambda ||D(x_t) - D(x_a + sigma e_2)||^2: score regularisation (Eq. 8), lambda 1 there."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        _check(self.weight)

    def second(
        self, x: Tensor, start: Tensor, denoised: Tensor, other: Callable[[], Tensor]
    ) -> Tensor | float:
        """The distance between the two one-shot denoisings."""
        return self.weight * ((denoised - other()) ** 2).sum()


def _check(weight: float) -> None:
    if not 0 <= weight < float("inf"):
        raise ConfigError(f"lambda (weight) must be >= 0, got {weight}")
