"""A folder of a user's own images."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.data.files import Decoder, Files, class_folders
from adpur.lit.data.images import Images, held_out

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Folder(ImageData):
    """Images in a subfolder for each class, or in such folders for each split.

    `root/cat/1.png` are evaluated as they are; there is nothing to fit on. `root/test/cat/1.png`
    have `root/train` and `root/validation` beside them for a fit; without the latter, a fixed
    stratified tenth of the training images is held out.

    Args:
        root: the folder.
        size: shorter side to resize to, then side of the central square that is kept; without it
            all images must be of one size.
        grey: one channel instead of three.
        kwargs: of `ImageData`.
    """

    def __init__(
        self, root: str, size: int | None = None, grey: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.root = root
        self.names, self.parts = _read(Path(root), Decoder(size, size, grey))
        self.classes = len(self.names)
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


@lru_cache
def _read(root: Path, decoder: Decoder) -> tuple[list[str], dict[str, Files]]:
    """Class names, and what there is of each split."""
    names: list[str] = []
    parts: dict[str, Files] = {}
    first = 0
    for split, folder in _layout(root).items():
        classes, files, labels = class_folders(folder)
        names = names or classes
        if classes != names:
            raise ConfigError(
                f"{folder}: expected the class folders of the other splits, {', '.join(names)}; "
                f"the difference is {', '.join(sorted(set(names) ^ set(classes)))}"
            )
        shape = next(iter(parts.values())).shape if parts else tuple(decoder(Path(files[0])).shape)
        parts[split] = Files(files, labels, first, decoder, shape)  # type: ignore[arg-type]
        first += len(files)
    return names, parts


def _layout(root: Path) -> dict[str, Path]:
    """The folder of each split; of test alone, where there are none."""
    if not root.is_dir():
        raise ConfigError(f"root: {root} is not a folder; a subfolder of images a class is needed")
    found = {folder.name for folder in root.iterdir() if folder.is_dir() and folder.name[0] != "."}
    if not found & set(SPLITS):
        return {"test": root}
    if strange := sorted(found - set(SPLITS)):
        raise ConfigError(f"{root}: expected {', '.join(SPLITS)}, got {', '.join(strange)} beside")
    return {name: root / name for name in SPLITS if name in found}
