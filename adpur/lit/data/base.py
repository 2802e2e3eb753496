"""Batches `(x, y, index)`: images in [0, 1], labels, dataset rows."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from adpur.errors import ConfigError
from adpur.lit.data.share import Shard, WholeBatches, batch_count

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
    shard = Shard()
    """Which of the evaluated batches are this command's; all, but for `adpur test --shard`."""

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
        self._position = (0, 0)

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

    @property
    def batches(self) -> range:
        """Which of the evaluated batches are this shard's."""
        return self.shard.batches(batch_count(len(self.subset), self.batch_size))

    def first(self, count: int) -> Tensor:
        """Dataset rows of the first `count` evaluated images."""
        data = self.split(self.evaluate)
        return torch.stack([data[i][2] for i in self.subset[:count]])

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
        x, y, index = zip(*(data[i] for i in range(len(data))), strict=True)  # type: ignore[arg-type]
        return torch.stack(x), torch.stack(y), torch.stack(index)

    def train_dataloader(self) -> "ResumableLoader":
        """A shuffled loader that starts where the restored checkpoint stood, even mid-epoch."""
        rank, world = self._place
        data = self.split("train")
        return ResumableLoader(data, self.batch_size, self.seed, rank, world, *self._position)

    def state_dict(self) -> dict[str, int]:
        """Which batch of which epoch is done: the trainer's word, as it fetches one ahead."""
        trainer: Any = self.trainer
        done = trainer.fit_loop.epoch_loop.batch_progress.total.processed
        epoch, given = divmod(done, trainer.num_training_batches)
        return {"epoch": epoch, "given": given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next training loader there."""
        self._position = (state["epoch"], state["given"])

    def val_dataloader(self) -> DataLoader[Batch]:
        """All validation images, once."""
        return self._exact(self.split("validation"))

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

    def _exact(self, dataset: Dataset[Batch]) -> DataLoader[Batch]:
        return self._loader(dataset, ExactSampler(dataset, *self._place[::-1], shuffle=False))

    def _loader(
        self, dataset: Dataset[Batch], sampler: DistributedSampler[Any]
    ) -> DataLoader[Batch]:
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
    """Shuffled whole batches, starting anywhere in any epoch.

    The order is a function of (seed, epoch) alone; each process takes every `world`-th image. A
    DataLoader would start the epoch again after a resume.
    """

    def __init__(
        self,
        dataset: Dataset[Batch],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        epoch: int = 0,
        given: int = 0,
    ) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.rank, self.world = rank, world
        if not len(self):
            raise ConfigError(
                f"batch_size={batch_size} on {world} processes exceeds the training images"
            )
        self.epoch, self.given = divmod(epoch * len(self) + given, len(self))

    def __len__(self) -> int:
        return len(self.dataset) // (self.world * self.batch_size)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self.epoch, self.given
        self.epoch, self.given = epoch + 1, 0
        gen = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.dataset), generator=gen).tolist()  # type: ignore[arg-type]
        mine = order[self.rank :: self.world]
        for batch in range(start, len(self)):
            part = mine[batch * self.batch_size : (batch + 1) * self.batch_size]
            x, y, index = zip(*(self.dataset[i] for i in part), strict=True)
            yield torch.stack(x), torch.stack(y), torch.stack(index)

    def state_dict(self) -> dict[str, int]:
        """Empty: Lightning asks after fetching one batch ahead, so `ImageData` keeps the place."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing; without this pair Lightning would warn that the loader cannot resume."""
