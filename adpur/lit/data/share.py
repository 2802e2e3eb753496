"""Which batches of an evaluation a process works on."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.utils.data import Dataset, DistributedSampler

from adpur.errors import ConfigError


@dataclass(frozen=True)
class Shard:
    """Every `of`-th batch from the `number`-th on, 1-based: one job of a cluster array.

    >>> Shard.parse("2/3").batches(7)
    range(1, 7, 3)
    """

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise ConfigError(f"shard: expected k/n with 1 <= k <= n, got {self}")

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`k/n`."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal()):
            raise ConfigError(f"shard: expected k/n, such as 1/4 to 4/4, got {text}")
        return cls(int(number), int(of))

    def batches(self, count: int) -> range:
        """Its batches of `count`."""
        return range(self.number - 1, count, self.of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def batch_count(images: int, batch_size: int) -> int:
    """Batches of an evaluation, the last one perhaps short."""
    return -(-images // batch_size)


class WholeBatches(DistributedSampler[Any]):
    """Images in order, but only those of this process's batches, each batch whole.

    Batch b of the shard belongs to rank b mod world, so batches hold the same images for any number
    of processes. Lightning leaves a DistributedSampler alone.
    """

    def __init__(
        self, dataset: Dataset[Any], batch_size: int, shard: Shard, rank: int, world: int
    ) -> None:
        super().__init__(dataset, world, rank, shuffle=False)
        size = len(dataset)  # type: ignore[arg-type]
        mine = shard.batches(batch_count(size, batch_size))[rank::world]
        self.positions = [
            i for b in mine for i in range(b * batch_size, min((b + 1) * batch_size, size))
        ]

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)
