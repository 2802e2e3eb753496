"""A folder of a user's own images."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.data.decode import is_image
from adpur.lit.data.files import Decoder, Files, class_folders
from adpur.lit.data.images import Images, held_out
from adpur.lit.data.paths import expanded

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Folder(ImageData):
    """Images in a subfolder for each class, or in such folders for each split.

    `root/cat/1.png` are evaluated as they are; there is nothing to fit on. `root/test/cat/1.png`
    have `root/train` and `root/validation` beside them for a fit; without the latter, a fixed
    stratified tenth of the training images is held out. `root/1.png`, or `root/train/1.png`, have
    no labels: a diffusion model can be fitted on them, and nothing be evaluated.

    Folders that are named by whole numbers are the classes of these numbers: `10` comes after `9`,
    and `7` is class 7 where 6 is missing. Others are numbered in sorted order, as by torchvision's
    `ImageFolder`, unless `names` says which class each is.

    Args:
        root: the folder.
        size: shorter side to resize to, then side of the central square that is kept; without it
            all images must be of one size.
        grey: one channel instead of three.
        names: the classifier's classes in the order of its logits, or a file that lists them, one
            a line or as a JSON list; needed where only some of them have a folder.
        kwargs: of `ImageData`.
    """

    def __init__(
        self, root: str, size: int | None = None, grey: bool = False,
        names: Sequence[str] | str | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.root = str(expanded(root))
        known = _listed(names) if isinstance(names, str) else list(names or [])
        self.names, self.labels, self.parts = _read(
            Path(self.root), Decoder(size, size, grey), known
        )
        self.guessed = not known and not _numbers(self.names)
        self.classes = max(self.labels.values(), default=-1) + 1
        self.shape = next(iter(self.parts.values())).shape

    def split(self, name: Split) -> Dataset[Batch]:
        """Images in [0, 1] under rows that count through train, validation and test."""
        parts = dict[str, Images](self.parts)
        if "train" in parts and "validation" not in parts:
            parts |= held_out(parts["train"], max(1, len(parts["train"]) // 10))
        if name not in parts:
            raise ConfigError(
                f"{self.root} has images for {', '.join(parts)}, none for {name}; put class "
                f"folders into {Path(self.root) / name}"
            )
        return parts[name]


def _read(
    root: Path, decoder: Decoder, known: Sequence[str]
) -> tuple[list[str], dict[str, int], dict[str, Files]]:
    """Class folders, the class of each, and what there is of each split."""
    layout = _layout(root)
    flat = all(_flat(folder) for folder in layout.values())
    names: list[str] = []
    labels: dict[str, int] = {}
    parts: dict[str, Files] = {}
    first = 0
    for split, folder in layout.items():
        classes, files, y = _unlabelled(folder) if flat else class_folders(folder)
        names = names or classes
        if classes != names:
            raise ConfigError(
                f"{folder}: expected the class folders of the other splits, {', '.join(names)}; "
                f"the difference is {', '.join(sorted(set(names) ^ set(classes)))}"
            )
        if names:
            labels = _labels(names, known, root)
            y = torch.tensor([labels[name] for name in names])[y]
        shape = next(iter(parts.values())).shape if parts else tuple(decoder(Path(files[0])).shape)
        parts[split] = Files(files, y, first, decoder, shape)  # type: ignore[arg-type]
        first += len(files)
    return names, labels, parts


def _labels(names: Sequence[str], known: Sequence[str], root: Path) -> dict[str, int]:
    """The class of each folder: by `known` names, by its own number, or by its place."""
    if known:
        if strange := [name for name in names if name not in known]:
            raise ConfigError(
                f"{root}: class folder {strange[0]} is none of the {len(known)} names that "
                f"`names:` lists ({', '.join(known[:3])}, ...)"
            )
        return {name: known.index(name) for name in names}
    if not _numbers(names):
        return {name: k for k, name in enumerate(names)}
    numbers = {name: int(name) for name in names}
    if len(set(numbers.values())) < len(names):
        raise ConfigError(f"{root}: two class folders have one number: {', '.join(names[:8])}")
    return numbers


def _numbers(names: Sequence[str]) -> bool:
    """Whether all are plain decimal numbers; a wnid or a year beside a name is none."""
    return all(name.isascii() and name.isdigit() and len(name) <= 6 for name in names)


def _listed(file: str) -> list[str]:
    """The names a file lists."""
    path = expanded(file)
    try:
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"names: {file} cannot be read ({error}); one name a line") from error
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise ConfigError(f"names: expected a list of names in {file}, in the order of the logits")
    names = [name.strip() for name in found if name.strip()]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"names: {file} lists {twice[0]} twice")
    return names


def _unlabelled(folder: Path) -> tuple[list[str], list[str], Tensor]:
    """The images of a folder without classes; their labels mean nothing."""
    files = sorted(str(file) for file in folder.iterdir() if is_image(file))
    return [], files, torch.zeros(len(files), dtype=torch.int64)


def _flat(folder: Path) -> bool:
    """Whether a folder holds images and no subfolder."""
    held = [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    return not any(entry.is_dir() for entry in held) and any(is_image(Path(e.path)) for e in held)


def _layout(root: Path) -> dict[str, Path]:
    """The folder of each split; of test alone, where there are none, of train without labels."""
    if not root.is_dir():
        raise ConfigError(f"root: {root} is not a folder; a subfolder of images a class is needed")
    found = {folder.name for folder in root.iterdir() if folder.is_dir() and folder.name[0] != "."}
    if not found & set(SPLITS):
        return {"train" if _flat(root) else "test": root}
    if strange := sorted(found - set(SPLITS)):
        raise ConfigError(f"{root}: expected {', '.join(SPLITS)}, got {', '.join(strange)} beside")
    return {name: root / name for name in SPLITS if name in found}
