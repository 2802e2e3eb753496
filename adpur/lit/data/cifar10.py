"""CIFAR-10 as its authors publish it, never downloaded."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data.base import Batch, ImageData, Split

VARIABLE = "ADPUR_CIFAR10"
FOLDER = "cifar-10-batches-py"
VALIDATION = 5_000


class Cifar10(ImageData):
    """CIFAR-10 (Krizhevsky 2009): 60,000 images of 3x32x32, split 45,000 / 5,000 / 10,000.

    The validation images are a fixed stratified choice of the official training images; the test
    images are the official ones.

    Args:
        root: the folder that holds `cifar-10-batches-py`; $ADPUR_CIFAR10 by default.
        batch_size: see `ImageData`.
        limit: see `ImageData`.
        subset_seed: see `ImageData`.
        evaluate: see `ImageData`.
    """

    shape = (3, 32, 32)
    classes = 10

    def __init__(
        self,
        root: str | None = None,
        batch_size: int = 64,
        limit: int | None = None,
        subset_seed: int = 0,
        evaluate: Literal["test", "validation"] = "test",
    ) -> None:
        super().__init__(batch_size, limit, subset_seed, evaluate)
        self.root = root

    def split(self, name: Split) -> Dataset[Batch]:
        """Images `(3, 32, 32)` in [0, 1]; `index` is the official row, test images from 50,000.

        Raises:
            ConfigError: where the files are missing or differ from the official ones.
        """
        return _splits(self.root or os.environ.get(VARIABLE))[name]


class Pixels(Dataset[Batch]):
    """Bytes on the host, [0, 1] when asked for: a quarter of the memory."""

    def __init__(self, pixels: Tensor, labels: Tensor, index: Tensor) -> None:
        self.pixels, self.labels, self.index = pixels, labels, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Batch:
        return self.pixels[i].float() / 255, self.labels[i], self.index[i]


@lru_cache
def _splits(root: str | None) -> dict[str, Pixels]:
    from sklearn.model_selection import train_test_split

    pixels, labels = _read(root, train=True)
    rest, validation = train_test_split(
        np.arange(len(labels)), test_size=VALIDATION, stratify=labels, random_state=0
    )
    parts = {"train": np.sort(rest), "validation": np.sort(validation)}
    found = {
        name: Pixels(pixels[rows], labels[rows], rows)
        for name, rows in ((name, torch.from_numpy(rows)) for name, rows in parts.items())
    }
    pixels, labels = _read(root, train=False)
    return found | {"test": Pixels(pixels, labels, 50_000 + torch.arange(len(labels)))}


def _read(root: str | None, train: bool) -> tuple[Tensor, Tensor]:
    """Official pixels `(n, 3, 32, 32)` as bytes, and labels; torchvision checks every md5."""
    from torchvision.datasets import CIFAR10

    if root is None or not (Path(root) / FOLDER).is_dir():
        raise ConfigError(
            f"expected a folder that holds {FOLDER}, got {root or 'none'}; set {VARIABLE} to it, "
            "or write `root:` in the data block (nothing is downloaded)"
        )
    try:
        data = CIFAR10(root, train=train)
    except RuntimeError as error:
        raise ConfigError(
            f"{Path(root) / FOLDER} is not the official CIFAR-10 (a file is missing or its md5 "
            "differs); unpack the python version again"
        ) from error
    return torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets)
