"""Batches `(x, y, index)`: images in [0, 1], labels, dataset rows."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from adpur.errors import ConfigError
from adpur.lit.data.augment import Augment
from adpur.lit.data.images import Batch, Split, gather, rows_of
from adpur.lit.data.loaders import ExactSampler, Loader, ResumableLoader
from adpur.lit.data.share import Shard, WholeBatches, batch_count
from adpur.lit.data.subset import Random, Subset

__all__ = ["Batch", "ImageData", "Split"]


class ImageData(pl.LightningDataModule):
    """Labelled images with their dataset rows, in fixed splits.

    Args:
        batch_size: images a batch, per process; a fit that is continued on another number of
            processes keeps their product.
        limit: evaluate on this many images, a fixed choice by `subset_seed`; all by default.
        subset_seed: which images `limit` keeps.
        evaluate: the split `adpur test` reads; choices belong on `validation`.
        subset: which images of it, where `limit` does not say enough; `limit` lowers its count.
        validation: which validation images a fit looks at; all by default.
        flip: training images are mirrored at random, by (seed, epoch, image).
        crop: training images are moved by up to so many pixels, likewise (4 on CIFAR).
        workers: processes that decode images; they change no number.
    """

    shape: tuple[int, int, int]
    classes: int
    """Labels are below it; 0 where there are none."""
    labels: Mapping[str, int] = {}
    """The class of each name, where the files have names for classes."""
    guessed = False
    """Whether a class is only the place of its name among those that are there."""
    shard = Shard()
    """Which of the evaluated batches are this command's; all, but for `adpur test --shard`."""

    def __init__(
        self,
        batch_size: int = 64,
        limit: int | None = None,
        subset_seed: int = 0,
        evaluate: Literal["test", "validation"] = "test",
        subset: Subset | None = None,
        validation: Subset | None = None,
        flip: bool = False,
        crop: int = 0,
        workers: int = 0,
    ) -> None:
        super().__init__()
        if batch_size < 1 or (limit is not None and limit < 1):
            raise ConfigError(
                f"batch_size and limit must be positive, got {batch_size} and {limit}"
            )
        if workers < 0:
            raise ConfigError(f"workers: expected 0 (none) or more processes, got {workers}")
        self.batch_size, self.workers = batch_size, workers
        self.choice = _limited(subset, limit, subset_seed)
        self.validation, self.augment = validation, Augment(flip, crop)
        self.evaluate: Split = evaluate
        self.seed = 0
        self._position = (0, 0)
        self._step: int | None = None
        """Images of a step of the fit that is continued, of all processes together."""

    @abstractmethod
    def split(self, name: Split) -> Dataset[Batch]:
        """A dataset of `(x, y, index)`; `index` is unique over all splits."""

    @property
    def subset(self) -> list[int]:
        """Positions, within the evaluated split, of the images that are evaluated."""
        return self._chosen(self.choice, self.evaluate)

    @property
    def batches(self) -> range:
        """Which of the evaluated batches are this shard's."""
        return self.shard.batches(batch_count(len(self.subset), self.batch_size))

    def first(self, count: int) -> Tensor:
        """Dataset rows of the first `count` evaluated images."""
        return rows_of(self.split(self.evaluate), self.subset[:count])

    def digest(self) -> str:
        """sha256 of every evaluated image, label and row number: the data, whatever its name."""
        digest, data = hashlib.sha256(), self.split(self.evaluate)
        for i in self.subset:
            for part in data[i]:
                digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def stacked(self, name: Split) -> Batch:
        """A whole split as three tensors."""
        data = self.split(name)
        return gather(data, range(len(data)))  # type: ignore[arg-type]

    def leading(self, name: Split, count: int) -> Batch:
        """The first images of a split, at most `count`, as three tensors."""
        data = self.split(name)
        return gather(data, range(min(count, len(data))))  # type: ignore[arg-type]

    def train_dataloader(self) -> ResumableLoader:
        """A shuffled loader that starts where the restored checkpoint stood, even mid-epoch."""
        return ResumableLoader(
            self.split("train"), self._mine(), self.seed, *self._place, *self._position,
            augment=self.augment, workers=self.workers,
        )  # fmt: skip

    def state_dict(self) -> dict[str, int]:
        """Which batch of which epoch is done: the trainer's word, as it fetches one ahead.

        And the images of a batch on all processes together, which a resumed fit keeps.
        """
        trainer: Any = self.trainer
        done = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        epoch, given = divmod(done, trainer.num_training_batches)
        return {"epoch": epoch, "given": given, "images": self._mine() * trainer.world_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next training loader there; fits of adpur 0.1.0 did not say `images`."""
        self._position = (state["epoch"], state["given"])
        self._step = state.get("images")

    def _mine(self) -> int:
        """Training images a batch of this process: its share of what the fit began with."""
        world = self._place[1]
        if self._step is None:
            return self.batch_size
        if self._step % world:
            raise ConfigError(
                f"this fit began with {self._step} images a batch on all processes together: "
                f"expected a number of processes that divides it, got {world}; change "
                "trainer.devices or trainer.num_nodes, or start anew with --fresh"
            )
        return self._step // world

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation images that `validation` chooses, once."""
        data = self.split("validation")
        if self.validation is not None:
            data = torch.utils.data.Subset(data, self._chosen(self.validation, "validation"))
        return self._loader(data, ExactSampler(data, *self._place[::-1], shuffle=False))

    def test_dataloader(self) -> DataLoader[Batch]:
        """This shard's images in whole batches, each batch on one process."""
        rank, world = self._place
        images = len(self.subset)
        if images < world:
            raise ConfigError(f"{images} images cannot be shared by {world} processes")
        if len(self.batches) < world:  # Lightning would leave the idle out, and the others waiting
            small = max(1, images // (world * self.shard.of))
            raise ConfigError(
                f"expected a batch for each of {world} processes, got {len(self.batches)}; "
                f"take data.batch_size={small} or less (it changes no number)"
            )
        chosen = torch.utils.data.Subset(self.split(self.evaluate), self.subset)
        return self._loader(chosen, WholeBatches(chosen, self.batch_size, self.shard, rank, world))

    def _chosen(self, by: Subset | None, name: Split) -> list[int]:
        data = self.split(name)
        size = len(data)  # type: ignore[arg-type]
        if by is None:
            return list(range(size))
        if by.count < 1:
            raise ConfigError(f"subset: expected a positive count, got {by.count}")
        if by.count > size:
            raise ConfigError(
                f"subset.count or limit={by.count} is more than the {size} images of {name}"
            )
        return by.positions(data)

    def _loader(
        self, dataset: Dataset[Batch], sampler: DistributedSampler[Any]
    ) -> DataLoader[Batch]:
        return Loader(
            dataset, batch_size=self.batch_size, sampler=sampler, num_workers=self.workers
        )

    @property
    def _place(self) -> tuple[int, int]:
        trainer = self.trainer
        return (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)


def _limited(subset: Subset | None, limit: int | None, seed: int) -> Subset | None:
    """`limit` alone is a random choice; beside a subset it lowers its count."""
    if limit is None:
        return subset
    if subset is None:
        return Random(limit, seed)
    return replace(subset, count=min(limit, subset.count))  # type: ignore[type-var]
