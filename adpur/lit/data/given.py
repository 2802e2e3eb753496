"""Images a user brings as arrays."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from adpur.errors import ConfigError
from adpur.lit.data.archive import arrays
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.data.paths import expanded

WHITE = {"uint8": 255, "uint16": 65_535}
"""What 1 is in integers."""


class Given(ImageData):
    """Labelled images from a `.npz` file with arrays `x` and `y`, evaluated as they are.

    Args:
        file: `x` `(n, C, H, W)`, floats in [0, 1] or unsigned integers of 8 or 16 bits; `y` `(n,)`
            labels.
        kwargs: of `ImageData`.
    """

    def __init__(self, file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        path = expanded(file)
        if not path.is_file():
            raise ConfigError(f"{file} does not exist; a .npz file with arrays x and y is needed")
        self.x, self.y = _checked(file, *_arrays(path))
        self.shape = tuple(self.x.shape[1:])  # type: ignore[assignment]
        self.classes = int(self.y.max()) + 1

    def split(self, name: Split) -> Dataset[Batch]:
        """All images, under the row numbers of the file."""
        rows = torch.arange(len(self.x))
        return TensorDataset(self.x, self.y, rows)  # type: ignore[return-value]


def _arrays(file: Path) -> Sequence[Any]:
    held = arrays(file, ("x", "y"), "write it with np.savez(file, x=x, y=y)")
    return held["x"], held["y"]


def _checked(file: str, x: Any, y: Any) -> tuple[Tensor, Tensor]:
    if x.ndim != 4 or y.shape != x.shape[:1] or not len(x):
        raise ConfigError(
            f"{file}: expected x (n, C, H, W) and y (n,), got {x.shape} and {y.shape}"
        )
    if x.shape[1] not in (1, 3):
        raise ConfigError(f"{file}: expected 1 or 3 channels first, got x {x.shape}")
    if x.dtype.name not in WHITE and not np.issubdtype(x.dtype, np.floating):
        raise ConfigError(
            f"{file}: expected x of floats in [0, 1], of uint8 or of uint16, got {x.dtype}"
        )
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise ConfigError(f"{file}: expected y of class numbers from 0 on, got {y.dtype} {y[:4]}")
    images = torch.from_numpy(x.astype(np.float32, copy=False))
    if (white := WHITE.get(x.dtype.name)) is not None:
        images = images / white
    if not (images.min() >= 0 and images.max() <= 1):
        raise ConfigError(
            f"{file}: expected x in [0, 1], got {images.min():.3g} to {images.max():.3g}; "
            "normalisation belongs inside the classifier"
        )
    return images, torch.from_numpy(y.astype(np.int64))
