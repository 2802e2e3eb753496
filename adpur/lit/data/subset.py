"""Which images of a split are evaluated: fixed choices, as values."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data.images import Batch, labels_of


class Subset(ABC):
    """A choice of `count` images, a function of its settings and of the split alone."""

    count: int

    @abstractmethod
    def positions(self, data: Dataset[Batch]) -> list[int]:
        """Increasing positions within the split, which has at least `count` images."""


@dataclass(frozen=True)
class Random(Subset):
    """`count` images by `seed`; what `limit` and `subset_seed` abbreviate."""

    count: int
    seed: int = 0

    def positions(self, data: Dataset[Batch]) -> list[int]:
        """The first `count` of a permutation."""
        return sorted(_shuffled(data, self.seed)[: self.count].tolist())


@dataclass(frozen=True)
class First(Subset):
    """The first `count` images of the split's own order."""

    count: int

    def positions(self, data: Dataset[Batch]) -> list[int]:
        """0, 1, ..."""
        return list(range(self.count))


@dataclass(frozen=True)
class Stratified(Subset):
    """`count` images by `seed`, as many of each class, give or take one.

    Raises:
        ConfigError: where a class has too few.
    """

    count: int
    seed: int = 0

    def positions(self, data: Dataset[Batch]) -> list[int]:
        """In rounds over a permutation, each taking one image of every class."""
        order = _shuffled(data, self.seed)
        labels = labels_of(data)[order]
        chosen = _rounds(labels).argsort(stable=True)[: self.count]
        there = labels.bincount() > 0
        sizes = labels[chosen].bincount(minlength=len(there))[there]
        if sizes.max() - sizes.min() > 1:
            raise ConfigError(
                f"Stratified: {self.count} images need {int(sizes.max())} of each class, and one "
                f"has {int(sizes.min())}; take fewer, or adpur.Random"
            )
        return sorted(order[chosen].tolist())


def _shuffled(data: Dataset[Batch], seed: int) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return torch.randperm(len(data), generator=gen)  # type: ignore[arg-type]


def _rounds(labels: Tensor) -> Tensor:
    """How many earlier images have the same label, `(n,)`."""
    by_class = labels.argsort(stable=True)
    sizes = labels.bincount()
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return torch.empty_like(labels).scatter_(0, by_class, torch.arange(len(labels)) - starts)
