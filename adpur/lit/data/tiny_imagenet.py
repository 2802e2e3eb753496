"""Tiny ImageNet as Stanford's CS231n publishes it."""

from functools import lru_cache
from pathlib import Path

import torch

from adpur.errors import ConfigError
from adpur.lit.data.files import Decoder, Files, class_folders, complete
from adpur.lit.data.images import Images
from adpur.lit.data.paths import stamp
from adpur.lit.data.published import Official, Published

SHAPE = (3, 64, 64)
TRAIN_IMAGES, TEST_IMAGES = 100_000, 10_000
DECODER = Decoder(upright=False)


class TinyImageNet(Published):
    """Tiny ImageNet (Le & Yang 2015): 200 classes of 3x64x64, split 95,000 / 5,000 / 10,000.

    The test images are the official validation images in the order of `val_annotations.txt`, for
    the official test labels are not public. Class k is the k-th wnid in sorted order, as in
    torchvision's `ImageFolder`.

    Args:
        root: the folder that holds `tiny-imagenet-200`; $ADPUR_TINY_IMAGENET by default.
        kwargs: of `ImageData`.
    """

    shape = SHAPE
    classes = 200
    variable = "ADPUR_TINY_IMAGENET"
    holds = "tiny-imagenet-200"

    def official(self, part: Official) -> Images:
        """Images of `train/` or, from row 100,000 on, of `val/`."""
        read = _train if part == "train" else _test
        folder = self.folder / self.holds
        return read(folder, stamp(*_changing(folder, part)))


@lru_cache
def _train(folder: Path, state: object) -> Images:
    found, files, labels = class_folders(folder / "train")
    if strange := sorted(set(_wnids(folder)) ^ set(found)):
        raise ConfigError(
            f"{folder / 'train'}: expected the class folders of wnids.txt, the difference is "
            f"{', '.join(strange[:3])}; unpack it again"
        )
    complete(folder / "train", "images", len(files), TRAIN_IMAGES)
    return Files(files, labels, 0, DECODER, SHAPE)


@lru_cache
def _test(folder: Path, state: object) -> Images:
    told, images = folder / "val" / "val_annotations.txt", folder / "val" / "images"
    number = {wnid: k for k, wnid in enumerate(_wnids(folder))}
    rows = [line.split("\t")[:2] for line in _lines(told)]
    if strange := [row for row in rows if len(row) < 2 or row[1] not in number]:
        raise ConfigError(f"{told}: expected FILE, tab, class of wnids.txt, got {strange[0]}")
    found = {file for file, _ in rows} & {file.name for file in images.glob("*")}
    complete(images, "images of val_annotations.txt", len(found), TEST_IMAGES)
    labels = torch.tensor([number[wnid] for _, wnid in rows])
    return Files([str(images / file) for file, _ in rows], labels, TRAIN_IMAGES, DECODER, SHAPE)


def _changing(folder: Path, part: Official) -> list[Path]:
    """What is changed when an image comes or goes."""
    told = [folder / "wnids.txt", folder / "val" / "val_annotations.txt"]
    if part == "test":
        return [*told, folder / "val" / "images"]
    return [*told, folder / "train", *sorted(folder.glob("train/*/images"))]


def _wnids(folder: Path) -> list[str]:
    """The classes, sorted."""
    return sorted(_lines(folder / "wnids.txt"))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; unpack Tiny ImageNet again") from error
