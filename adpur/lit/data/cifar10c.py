"""CIFAR-10-C as its authors publish it."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data.archive import mapped
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.data.images import Images, Pixels
from adpur.lit.data.paths import stamp
from adpur.lit.data.published import located

VARIABLE = "ADPUR_CIFAR10C"
SEVERITIES, IMAGES = 5, 10_000
AGAIN = "unpack CIFAR-10-C.tar again"
CLEAN_ROW = 50_000
"""The row of the first CIFAR-10 test image."""


class Cifar10C(ImageData):
    """CIFAR-10-C (Hendrycks & Dietterich 2019): CIFAR-10's test images under one corruption.

    An image has the row of its clean original in `Cifar10`, so that both are purified with the same
    noise. Shapes, types and labels are checked; the authors publish a checksum of `CIFAR-10-C.tar`
    alone (md5 56bf5dcef84df0e2308c6dcbcbbd8499), to be compared before it is unpacked.

    Args:
        corruption: the name of one of its files: fog, gaussian_noise, jpeg_compression, ...
        severity: 1 to 5.
        root: the folder that holds `CIFAR-10-C`; $ADPUR_CIFAR10C by default.
        kwargs: of `ImageData`.
    """

    shape = (3, 32, 32)
    classes = 10

    def __init__(
        self, corruption: str, severity: int, root: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 1 <= severity <= SEVERITIES:
            raise ConfigError(f"severity: expected 1 to {SEVERITIES}, got {severity}")
        self.corruption, self.severity, self.root = corruption, severity, root

    def split(self, name: Split) -> Dataset[Batch]:
        """The test images; there are no others."""
        if name != "test":
            raise ConfigError(f"Cifar10C has test images only, got {name}; fit on adpur.Cifar10")
        folder = located(self.root, VARIABLE, "CIFAR-10-C") / "CIFAR-10-C"
        files = folder / f"{self.corruption}.npy", folder / "labels.npy"
        return _read(folder, self.corruption, self.severity, stamp(*files))


@lru_cache
def _read(folder: Path, corruption: str, severity: int, state: object) -> Images:
    known = sorted(file.stem for file in folder.glob("*.npy") if file.stem != "labels")
    if corruption not in known:
        raise ConfigError(
            f"corruption: {folder} has no {corruption}.npy; there is: {', '.join(known) or 'none'}"
        )
    pixels = mapped(folder / f"{corruption}.npy", (SEVERITIES * IMAGES, 32, 32, 3), np.uint8, AGAIN)
    rows = slice((severity - 1) * IMAGES, severity * IMAGES)
    held = torch.from_numpy(pixels[rows].copy()).permute(0, 3, 1, 2).contiguous()
    return Pixels(held, _labels(folder), CLEAN_ROW + torch.arange(IMAGES))


def _labels(folder: Path) -> torch.Tensor:
    """The same 10,000 labels for every severity, said five times in the file."""
    labels = mapped(folder / "labels.npy", (SEVERITIES * IMAGES,), np.integer, AGAIN)
    once = labels[:IMAGES]
    if once.min() < 0 or once.max() > 9 or (labels.reshape(SEVERITIES, -1) != once).any():
        raise ConfigError(
            f"{folder / 'labels.npy'}: expected classes 0 to 9, alike for each severity; {AGAIN}"
        )
    return torch.from_numpy(once.astype(np.int64))
