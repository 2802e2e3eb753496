"""Data sets of `(x, y, index)` that answer a whole batch at once."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from adpur.errors import ConfigError

Split = Literal["train", "validation", "test"]
Batch = tuple[Tensor, Tensor, Tensor]


class Images(Dataset[Batch]):
    """Labelled images under dataset rows; labels and rows are known before any image is decoded.

    Args:
        labels: int64 `(n,)`.
        index: dataset rows, int64 `(n,)`.
    """

    def __init__(self, labels: Tensor, index: Tensor) -> None:
        self.labels, self.index = labels, index

    @property
    def names(self) -> Sequence[str] | None:
        """The file of each image, where each has one."""
        return None

    @abstractmethod
    def pixels(self, positions: Tensor) -> Tensor:
        """Images at some positions, `(len(positions), C, H, W)` in [0, 1]."""

    def batch(self, positions: Sequence[int]) -> Batch:
        """Some images with their labels and rows."""
        at = torch.as_tensor(positions)
        return self.pixels(at), self.labels[at], self.index[at]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Batch:
        x, y, index = self.batch([i])
        return x[0], y[0], index[0]


class Pixels(Images):
    """Bytes on the host, [0, 1] when asked for: a quarter of the memory."""

    def __init__(self, held: Tensor, labels: Tensor, index: Tensor) -> None:
        super().__init__(labels, index)
        self.held = held

    def pixels(self, positions: Tensor) -> Tensor:
        """One indexing of the bytes, whatever their number."""
        return self.held[positions].float().div_(255)


class Part(Images):
    """Some images of a data set, which is not copied."""

    def __init__(self, whole: Images, positions: Tensor) -> None:
        super().__init__(whole.labels[positions], whole.index[positions])
        self.whole, self.positions = whole, positions

    @property
    def names(self) -> Sequence[str] | None:
        """The whole's."""
        names = self.whole.names
        return names if names is None else [names[i] for i in self.positions.tolist()]

    def pixels(self, positions: Tensor) -> Tensor:
        """The whole's."""
        return self.whole.pixels(self.positions[positions])


@lru_cache
def held_out(data: Images, count: int) -> dict[str, Images]:
    """Official training images as `train` and `validation`, a fixed stratified choice of `count`.

    Raises:
        ConfigError: where a class has too few images to be in both.
    """
    from sklearn.model_selection import train_test_split

    everything = np.arange(len(data))
    try:
        rest, validation = train_test_split(
            everything, test_size=count, stratify=data.labels, random_state=0
        )
    except ValueError as error:
        raise ConfigError(
            f"{len(data)} training images are too few to hold out {count} of every class for "
            f"validation ({error})"
        ) from error
    parts = {"train": rest, "validation": validation}
    return {name: Part(data, torch.from_numpy(np.sort(rows))) for name, rows in parts.items()}


def gather(data: Dataset[Batch], positions: Sequence[int]) -> Batch:
    """Some images as a batch; one indexing a tensor where the data are tensors."""
    if isinstance(data, Images):
        return data.batch(positions)
    if isinstance(data, TensorDataset):
        x, y, index = data[list(positions)]
        return x, y, index
    x, y, index = zip(*(data[i] for i in positions), strict=True)
    return torch.stack(x), torch.stack(y), torch.stack(index)


def labels_of(data: Dataset[Batch]) -> Tensor:
    """Labels of all images; none is decoded, except by a data set that is no `Images`."""
    if isinstance(data, Images):
        return data.labels
    return gather(data, range(len(data)))[1]  # type: ignore[arg-type]


def rows_of(data: Dataset[Batch], positions: Sequence[int]) -> Tensor:
    """Dataset rows at some positions; as for `labels_of`, nothing is decoded."""
    if isinstance(data, Images):
        return data.index[torch.tensor(positions, dtype=torch.int64)]
    return torch.tensor([int(data[i][2]) for i in positions], dtype=torch.int64)


def files_of(data: Dataset[Batch]) -> Sequence[str]:
    """The files of all images, in order."""
    names = data.names if isinstance(data, Images) else None
    if names is None:
        raise ConfigError("these images have no files of their own; list dataset rows")
    return names
