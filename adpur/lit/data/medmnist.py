"""MedMNIST as its authors publish it."""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data.archive import arrays
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.data.images import Images, Pixels
from adpur.lit.data.paths import expanded

PARTS: dict[Split, str] = {"train": "train", "validation": "val", "test": "test"}


class MedMNIST(ImageData):
    """One of MedMNIST's sets of flat images with one label each (Yang et al. 2023).

    Splits are the official ones, rows count through train, validation and test.

    Args:
        file: an official `.npz` file such as `pathmnist.npz` or `bloodmnist_64.npz`.
        kwargs: of `ImageData`.
    """

    def __init__(self, file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        path = expanded(file)
        if not path.is_file():
            raise ConfigError(f"{file} does not exist; one of MedMNIST's .npz files is needed")
        names = [f"{part}_{what}" for part in PARTS.values() for what in ("images", "labels")]
        held = arrays(path, names, "fetch it again")
        first, parts = 0, dict[Split, Images]()
        for split, part in PARTS.items():
            x, y = _checked(file, part, held[f"{part}_images"], held[f"{part}_labels"])
            parts[split] = Pixels(x, y, first + torch.arange(len(y)))
            first += len(y)
            self.shape = tuple(x.shape[1:])  # type: ignore[assignment]
        self.parts = parts
        self.classes = 1 + max(int(data.labels.max()) for data in parts.values())

    def split(self, name: Split) -> Dataset[Batch]:
        """Images in [0, 1]."""
        return self.parts[name]


def _checked(file: str, part: str, x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes `(n, C, H, W)` and labels `(n,)`."""
    colour = x.ndim == 4 and x.shape[3] == 3
    if x.dtype != np.uint8 or not (x.ndim == 3 or colour) or not len(x):
        raise ConfigError(
            f"{file}: expected {part}_images of bytes (n, H, W) or (n, H, W, 3), got {x.dtype} "
            f"{x.shape}; MedMNIST's volumes are no images"
        )
    if y.shape not in ((len(x), 1), (len(x),)) or not np.issubdtype(y.dtype, np.integer):
        raise ConfigError(
            f"{file}: expected {part}_labels (n, 1) of one class an image, got {y.dtype} {y.shape}"
            "; images with several labels at once have no accuracy here"
        )
    pixels = torch.from_numpy(x)
    pixels = pixels.permute(0, 3, 1, 2).contiguous() if colour else pixels[:, None]
    return pixels, torch.from_numpy(y.reshape(-1).astype(np.int64))
