"""Image files that are decoded when asked for."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.lit.data.decode import SUFFIXES, is_image, opened
from adpur.lit.data.images import Images


@dataclass(frozen=True)
class Decoder:
    """Image files as tensors in [0, 1]: RGB, resized bilinearly and cut out, all by PIL.

    Images of 16 bits a channel, which PIL cannot resize, are resized as tensors.

    Args:
        resize: length of the shorter side; as it is by default.
        crop: side of the central square that is kept; everything by default.
        grey: one channel instead of three.
        upright: turn photographs as their EXIF orientation says. Published data sets are read
            without, as by those whose numbers are compared with.
    """

    resize: int | None = None
    crop: int | None = None
    grey: bool = False
    upright: bool = True

    def __call__(self, file: Path, held: bytes | None = None) -> Tensor:
        """An image `(C, H, W)`, of a file or of what a file `held`.

        Raises:
            ConfigError: where the file is no image, or is cut short.
        """
        from torchvision.transforms.v2 import functional

        image = opened(file, self.grey, self.upright, held)
        if self.resize is not None:
            image = functional.resize(image, [self.resize])
        if self.crop is not None:
            image = functional.center_crop(image, [self.crop])
        if isinstance(image, Tensor):
            return image
        return functional.pil_to_tensor(image).float().div_(255)


class Files(Images):
    """Images on the disk; nothing but their names is held."""

    def __init__(
        self,
        files: Sequence[str],
        labels: Tensor,
        first: int,
        decoder: Decoder,
        shape: tuple[int, int, int],
    ) -> None:
        super().__init__(labels, first + torch.arange(len(files)))
        self.files, self.decoder, self.shape = files, decoder, shape

    @property
    def names(self) -> Sequence[str]:
        """Their paths."""
        return self.files

    def pixels(self, positions: Tensor) -> Tensor:
        """Each decoded anew."""
        return torch.stack([self._decoded(self.files[i]) for i in positions.tolist()])

    def _decoded(self, file: str) -> Tensor:
        x = self.decoder(Path(file))
        if x.shape != self.shape:
            raise ConfigError(
                f"{file}: expected {self.shape} (channels, height, width), got {tuple(x.shape)}; "
                "write `size:` in the data block of an adpur.Folder to bring all to one"
            )
        return x


def class_folders(folder: Path) -> tuple[list[str], list[str], Tensor]:
    """Classes, files and labels of a folder with a subfolder for each class.

    Classes and files are in the order of torchvision's `ImageFolder`, which has the same rows;
    what begins with a dot is neither a class nor an image.
    """
    names = class_names(folder)
    files = [list(images_under(folder / name)) for name in names]
    if empty := [name for name, found in zip(names, files, strict=True) if not found]:
        raise ConfigError(
            f"{folder}: found no valid file for the classes {', '.join(empty[:5])}; an image ends "
            f"in one of {' '.join(SUFFIXES)}"
        )
    labels = torch.arange(len(names)).repeat_interleave(torch.tensor([len(f) for f in files]))
    return names, [file for found in files for file in found], labels


def class_names(folder: Path) -> list[str]:
    """The subfolders of a folder, sorted; at least one."""
    try:
        names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and e.name[0] != ".")
    except OSError as error:
        raise ConfigError(
            f"{folder}: expected a subfolder of images for each class ({error})"
        ) from error
    if not names:
        raise ConfigError(f"{folder}: expected a subfolder of images for each class, got none")
    return names


def images_under(folder: Path) -> Iterator[str]:
    """Image files of a folder and of those in it, in `ImageFolder`'s order."""
    for root, _, files in sorted(os.walk(folder, followlinks=True)):
        hidden = any(part.startswith(".") for part in Path(root).relative_to(folder).parts)
        if not hidden:
            yield from (os.path.join(root, file) for file in sorted(files) if is_image(Path(file)))


def complete(folder: Path, what: str, found: int, expected: int) -> None:
    """Refuse a copy that lacks something, or has too much: its numbers would not compare."""
    if found != expected:
        raise ConfigError(
            f"{folder}: expected {expected} {what}, got {found}; unpack it again, or take "
            "adpur.Folder for a part of it"
        )
