"""How images come to a process: in what order, from where on, with how many workers."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Source
from adpur.lit.data.augment import Augment
from adpur.lit.data.images import Batch, gather


class Loader(DataLoader[Batch]):
    """A DataLoader that draws nothing, and whose workers' errors stay one line."""

    def __init__(self, dataset: Dataset[Batch], **kwargs: Any) -> None:
        # a loader would draw its workers' seed from the global generator
        super().__init__(dataset, generator=torch.Generator(), **kwargs)

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except ConfigError as error:  # a worker's comes with its traceback
            told = str(error).strip().splitlines()[-1]
            raise ConfigError(told.removeprefix("adpur.errors.ConfigError: ")) from None


class ExactSampler(DistributedSampler[Any]):
    """Each image on one process, none repeated; Lightning leaves a DistributedSampler alone."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(range(self.rank, len(self.dataset), self.num_replicas))  # type: ignore[arg-type]


class ResumableLoader:
    """Shuffled whole batches, starting anywhere in any epoch.

    The order is a function of (seed, epoch) alone, and what is done to an image of (seed, epoch,
    its row); each process takes every `world`-th image. A DataLoader would start the epoch again
    after a resume.
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
        augment: Augment = Augment(),
        workers: int = 0,
    ) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.rank, self.world = rank, world
        self.augment, self.workers = augment, workers
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
        batches = Augmented(self.dataset, self.augment, self.seed, epoch)
        parts = self._parts(epoch)[start:]
        yield from Loader(batches, batch_size=None, sampler=parts, num_workers=self.workers)

    def _parts(self, epoch: int) -> list[list[int]]:
        """Positions of this process's batches."""
        gen = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.dataset), generator=gen).tolist()  # type: ignore[arg-type]
        mine = order[self.rank :: self.world]
        starts = range(0, len(self) * self.batch_size, self.batch_size)
        return [mine[start : start + self.batch_size] for start in starts]

    def state_dict(self) -> dict[str, int]:
        """Empty: Lightning asks after fetching one batch ahead, so `ImageData` keeps the place."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing; without this pair Lightning would warn that the loader cannot resume."""


class Augmented(Dataset[Batch]):
    """Whole batches of one epoch by their positions, as a worker makes them."""

    def __init__(self, dataset: Dataset[Batch], augment: Augment, seed: int, epoch: int) -> None:
        self.dataset, self.augment, self.seed, self.epoch = dataset, augment, seed, epoch

    def __getitem__(self, positions: list[int]) -> Batch:
        x, y, index = gather(self.dataset, positions)
        noise = Noise(index, self.seed, Source.TRAIN, iteration=self.epoch)
        return self.augment(x, noise), y, index
