"""Image files that are decoded when asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.lit.data.images import Images


@dataclass(frozen=True)
class Decoder:
    """Image files as tensors in [0, 1]: RGB, resized bilinearly and cut out, all by PIL.

    Args:
        resize: length of the shorter side; as it is by default.
        crop: side of the central square that is kept; everything by default.
        grey: one channel instead of three.
    """

    resize: int | None = None
    crop: int | None = None
    grey: bool = False

    def __call__(self, file: Path) -> Tensor:
        """An image `(C, H, W)`.

        Raises:
            ConfigError: where the file is no image, or is cut short.
        """
        from torchvision.transforms.v2 import functional

        image = _opened(file, "L" if self.grey else "RGB")
        if self.resize is not None:
            image = functional.resize(image, [self.resize])
        if self.crop is not None:
            image = functional.center_crop(image, [self.crop])
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
    """Classes, files and labels of a folder with a subfolder for each class, in sorted order."""
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(folder)
    except OSError as error:
        raise ConfigError(
            f"{folder}: expected a subfolder of images for each class ({error})"
        ) from error
    return found.classes, [file for file, _ in found.samples], torch.tensor(found.targets)


def complete(folder: Path, what: str, found: int, expected: int) -> None:
    """Refuse a copy that lacks something, or has too much: its numbers would not compare."""
    if found != expected:
        raise ConfigError(
            f"{folder}: expected {expected} {what}, got {found}; unpack it again, or take "
            "adpur.Folder for a part of it"
        )


def _opened(file: Path, mode: str) -> Any:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:  # PIL's, by format
        raise ConfigError(f"{file} cannot be decoded ({error}); copy it again") from error
