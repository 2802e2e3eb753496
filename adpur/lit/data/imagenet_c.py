"""ImageNet-C as its authors publish it."""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data import imagenet
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.data.files import Decoder, Files, class_folders, complete
from adpur.lit.data.images import Images
from adpur.lit.data.paths import stamp
from adpur.lit.data.published import located

SEVERITIES = 5
SHAPE = (3, 224, 224)
"""Resized, cut and compressed by its authors; nothing is done to them again."""


class ImageNetC(ImageData):
    """ImageNet-C (Hendrycks & Dietterich 2019): ImageNet's validation images, corrupted.

    An image has the row of its clean original in `ImageNet`, so that both are purified with the
    same noise. Images are decoded when asked for: take `workers`.

    Args:
        corruption: the name of one of its folders: fog, gaussian_noise, jpeg_compression, ...
        severity: 1 to 5.
        root: the folder that holds `fog/3/n01440764/ILSVRC2012_val_00000293.JPEG` and so on;
            $ADPUR_IMAGENET_C by default.
        kwargs: of `ImageData`.
    """

    shape = SHAPE
    classes = imagenet.CLASSES

    def __init__(
        self, corruption: str, severity: int, root: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if not 1 <= severity <= SEVERITIES:
            raise ConfigError(f"severity: expected 1 to {SEVERITIES}, got {severity}")
        self.corruption, self.severity, self.root = corruption, severity, root
        self._read: Images | None = None

    def split(self, name: Split) -> Dataset[Batch]:
        """The test images; there are no others."""
        if name != "test":
            raise ConfigError(f"ImageNetC has test images only, got {name}; fit on adpur.ImageNet")
        if self._read is None:
            folder = located(self.root, "ADPUR_IMAGENET_C", self.corruption)
            folder = folder / self.corruption / str(self.severity)
            self._read = _read(folder, stamp(folder, *sorted(folder.glob("*"))))
        return self._read


@lru_cache
def _read(folder: Path, state: object) -> Images:
    classes, files, labels = class_folders(folder)
    complete(folder, "class folders", len(classes), imagenet.CLASSES)
    complete(folder, "images", len(files), imagenet.IMAGES["test"])
    numbers = [_number(file) for file in files]
    order = sorted(range(len(files)), key=numbers.__getitem__)
    data = Files([files[i] for i in order], labels[order], 0, Decoder(upright=False), SHAPE)
    data.index = imagenet.IMAGES["train"] + torch.tensor([numbers[i] - 1 for i in order])
    return data


def _number(file: str) -> int:
    """Of an official validation image."""
    if found := re.fullmatch(r"ILSVRC2012_val_(\d{8})\.JPEG", Path(file).name):
        return int(found[1])
    raise ConfigError(f"{file}: expected names such as ILSVRC2012_val_00000293.JPEG")
