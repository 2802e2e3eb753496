"""Which images of a split are evaluated: fixed choices, as values."""

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data.images import Batch, files_of, labels_of, rows_of


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


@dataclass(frozen=True)
class Listed(Subset):
    """The images that a file lists, such as RobustBench's 5,000 of ImageNet or Lee & Kim's 512.

    One image a line, or a JSON list, or an .npy array of numbers. An image is its file, by as much
    of the end of its path as makes it one (`n01440764/ILSVRC2012_val_00000293.JPEG`, or the name
    alone), or a number. Blank lines and those that begin with # are left out.

    Args:
        file: the list.
        by: what numbers count: "row", the dataset rows that records hold (CIFAR-10's test images
            begin at 50,000), or "position", images of the evaluated split from 0 on.
        count: only the first so many of the list; all by default.

    Raises:
        ConfigError: where an image is listed twice, or is not in the split.
    """

    file: str
    by: Literal["row", "position"] = "row"
    count: int = 0

    def __post_init__(self) -> None:
        if self.by not in ("row", "position"):
            raise ConfigError(f"Listed by: expected row or position, got {self.by!r}")
        whole = len(_entries(self.file))
        if self.count > whole:
            raise ConfigError(f"Listed: {self.file} lists {whole} images, fewer than {self.count}")
        object.__setattr__(self, "count", self.count or whole)

    def positions(self, data: Dataset[Batch]) -> list[int]:
        """Where the listed images are in the split."""
        entries = _entries(self.file)[: self.count]
        numbers = all(isinstance(entry, int) for entry in entries)
        found = self._numbered(data, entries) if numbers else self._named(data, entries)
        if len(set(found)) < len(found):
            twice = next(e for e, p in zip(entries, found, strict=True) if found.count(p) > 1)
            raise ConfigError(f"Listed: {self.file} lists {twice} twice")
        return sorted(found)

    def _numbered(self, data: Dataset[Batch], entries: list[Any]) -> list[int]:
        size = len(data)  # type: ignore[arg-type]
        rows = rows_of(data, range(size)).tolist() if self.by == "row" else range(size)
        place = {row: k for k, row in enumerate(rows)}
        if missing := [entry for entry in entries if entry not in place]:
            hint = "; write `by: position` if they count the images of the split from 0"
            raise ConfigError(
                f"Listed: {self.file} lists {self.by} {missing[0]}, and there is {min(place)} to "
                f"{max(place)}{hint if self.by == 'row' else ''}"
            )
        return [place[entry] for entry in entries]

    def _named(self, data: Dataset[Batch], entries: list[Any]) -> list[int]:
        ends: dict[str, list[int]] = {}
        for k, file in enumerate(files_of(data)):
            parts = Path(file).parts
            for start in range(len(parts)):
                ends.setdefault("/".join(parts[start:]), []).append(k)
        found = []
        for entry in map(str, entries):
            places = ends.get("/".join(Path(entry).parts), [])
            if len(places) != 1:
                told = "is no file of the split" if not places else f"fits {len(places)} files"
                raise ConfigError(f"Listed: {entry} of {self.file} {told}")
            found += places
        return found


def _entries(file: str) -> list[int | str]:
    """What a list says, numbers as numbers."""
    path = Path(file).expanduser()
    try:
        if path.suffix == ".npy":
            held: Any = np.load(path, allow_pickle=False).reshape(-1).tolist()
        elif path.suffix == ".json":
            held = json.loads(path.read_text())
        else:
            lines = (line.strip() for line in path.read_text().splitlines())
            held = [line for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(
            f"Listed: {file} cannot be read ({error}); one file or number a line"
        ) from error
    known = isinstance(held, list) and all(isinstance(e, int | str) for e in held)
    if not known or not held or any(isinstance(e, bool) for e in held):
        raise ConfigError(f"Listed: expected a list of files or of whole numbers in {file}")
    return [int(e) if isinstance(e, str) and e.isascii() and e.isdigit() else e for e in held]


def _shuffled(data: Dataset[Batch], seed: int) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return torch.randperm(len(data), generator=gen)  # type: ignore[arg-type]


def _rounds(labels: Tensor) -> Tensor:
    """How many earlier images have the same label, `(n,)`."""
    by_class = labels.argsort(stable=True)
    sizes = labels.bincount()
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return torch.empty_like(labels).scatter_(0, by_class, torch.arange(len(labels)) - starts)
