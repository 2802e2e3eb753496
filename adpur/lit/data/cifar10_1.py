"""CIFAR-10.1 as its authors publish it."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data.archive import mapped
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.data.images import Images, Pixels
from adpur.lit.data.paths import stamp
from adpur.lit.data.published import located

IMAGES = {"v4": 2_021, "v6": 2_000}
FIRST_ROW = 60_000
"""After CIFAR-10's own rows: these are other images."""
AGAIN = "fetch it again from its authors' repository"


class Cifar10_1(ImageData):
    """CIFAR-10.1 (Recht et al. 2018): new test images for CIFAR-10's classifiers.

    Args:
        version: v6, which its authors recommend, 2,000 images in equal classes, or v4, 2,021.
        root: the folder that holds `cifar10.1_v6_data.npy` and `cifar10.1_v6_labels.npy`;
            $ADPUR_CIFAR10_1 by default.
        kwargs: of `ImageData`.
    """

    shape = (3, 32, 32)
    classes = 10

    def __init__(
        self, version: Literal["v4", "v6"] = "v6", root: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if version not in IMAGES:
            raise ConfigError(f"version: expected v4 or v6, got {version!r}")
        self.version, self.root = version, root

    def split(self, name: Split) -> Dataset[Batch]:
        """The test images; there are no others."""
        if name != "test":
            raise ConfigError(f"Cifar10_1 has test images only, got {name}; fit on adpur.Cifar10")
        names = [f"cifar10.1_{self.version}_{what}.npy" for what in ("data", "labels")]
        folder = located(self.root, "ADPUR_CIFAR10_1", names[0])
        data, labels = (folder / name for name in names)
        return _read(data, labels, IMAGES[self.version], stamp(data, labels))


@lru_cache
def _read(data: Path, labels: Path, count: int, state: object) -> Images:
    pixels = mapped(data, (count, 32, 32, 3), np.uint8, AGAIN)
    classes = mapped(labels, (count,), np.integer, AGAIN)
    if classes.min() < 0 or classes.max() > 9:
        raise ConfigError(f"{labels}: expected classes 0 to 9; {AGAIN}")
    held = torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(classes.astype(np.int64))
    return Pixels(held, y, FIRST_ROW + torch.arange(count))
