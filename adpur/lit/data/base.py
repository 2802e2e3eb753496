"""Batches `(x, y, index)`: images in [0, 1], labels, dataset rows."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from adpur.errors import ConfigError

Split = Literal["train", "validation", "test"]
Batch = tuple[Tensor, Tensor, Tensor]


class ImageData(pl.LightningDataModule):
    """Labelled images with their dataset rows, in fixed splits.

    Args:
        batch_size: images a batch, per process.
        limit: evaluate on this many images, a fixed choice by `subset_seed`; all by default.
        subset_seed: which images `limit` keeps.
        evaluate: the split `adpur test` reads; choices belong on `validation`.
    """

    shape: tuple[int, int, int]
    classes: int

    def __init__(
        self,
        batch_size: int = 64,
        limit: int | None = None,
        subset_seed: int = 0,
        evaluate: Literal["test", "validation"] = "test",
    ) -> None:
        super().__init__()
        if batch_size < 1 or (limit is not None and limit < 1):
            raise ConfigError(
                f"batch_size and limit must be positive, got {batch_size} and {limit}"
            )
        self.batch_size = batch_size
        self.limit = limit
        self.subset_seed = subset_seed
        self.evaluate: Split = evaluate
        self.seed = 0

    @abstractmethod
    def split(self, name: Split) -> Dataset[Batch]:
        """A dataset of `(x, y, index)`; `index` is unique over all splits."""

    @property
    def subset(self) -> list[int]:
        """Positions, within the evaluated split, of the images that `limit` keeps."""
        size = len(self.split(self.evaluate))  # type: ignore[arg-type]
        gen = torch.Generator().manual_seed(self.subset_seed)
        order: list[int] = torch.randperm(size, generator=gen).tolist()
        if self.limit is not None and self.limit > size:
            raise ConfigError(
                f"limit={self.limit} is more than the {size} images of {self.evaluate}"
            )
        return sorted(order[: self.limit])

    def first(self, count: int) -> Tensor:
        """Dataset rows of the first `count` evaluated images."""
        data = self.split(self.evaluate)
        return torch.stack([data[i][2] for i in self.subset[:count]])

    def stacked(self, name: Split) -> Batch:
        """A whole split as three tensors."""
        data = self.split(name)
        x, y, index = zip(*(data[i] for i in range(len(data))), strict=True)  # type: ignore[arg-type]
        return torch.stack(x), torch.stack(y), torch.stack(index)

    def train_dataloader(self) -> "ResumableLoader":
        """A shuffled loader that can be stopped and resumed anywhere in an epoch."""
        rank, world = self._place
        return ResumableLoader(self.split("train"), self.batch_size, self.seed, rank, world)

    def val_dataloader(self) -> DataLoader[Batch]:
        """All validation images, once."""
        return self._exact(self.split("validation"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """The evaluated images, once, over however many processes."""
        chosen = torch.utils.data.Subset(self.split(self.evaluate), self.subset)
        if len(chosen) < self._place[1]:
            raise ConfigError(
                f"{len(chosen)} images cannot be shared by {self._place[1]} processes"
            )
        return self._exact(chosen)

    def _exact(self, dataset: Dataset[Batch]) -> DataLoader[Batch]:
        rank, world = self._place
        sampler = ExactSampler(dataset, world, rank, shuffle=False)
        private = torch.Generator()  # a loader would draw its workers' seed from the global one
        return DataLoader(dataset, self.batch_size, sampler=sampler, generator=private)

    @property
    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


class ExactSampler(DistributedSampler[Any]):
    """Each image on one process, none repeated; Lightning leaves a DistributedSampler alone."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]


class ResumableLoader:
    """Shuffled whole batches whose place in the epoch is part of every checkpoint.

    The order is a function of (seed, epoch) alone; each process takes every `world`-th image. A
    DataLoader would start the epoch again after a resume.
    """

    def __init__(
        self, dataset: Dataset[Batch], batch_size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.rank, self.world = rank, world
        self.epoch = self.given = 0
        if not len(self):
            raise ConfigError(
                f"batch_size={batch_size} on {world} processes exceeds the training images"
            )

    def __len__(self) -> int:
        return len(self.dataset) // (self.world * self.batch_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        if self.given == len(self):  # here, not at the end: Lightning never exhausts a loader
            self.epoch, self.given = self.epoch + 1, 0
        gen = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.dataset), generator=gen).tolist()  # type: ignore[arg-type]
        mine = order[self.rank :: self.world]
        while self.given < len(self):
            start = self.given * self.batch_size
            self.given += 1  # before the yield: a batch handed out counts as used
            rows = [self.dataset[i] for i in mine[start : start + self.batch_size]]
            yield tuple(torch.stack(column) for column in zip(*rows, strict=True))  # type: ignore[misc]

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands."""
        return {"epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.epoch, self.given = state["epoch"], state["given"]
