"""ImageNet-1K from folders of JPEGs."""

from functools import lru_cache
from pathlib import Path
from typing import Any

from adpur.errors import ConfigError
from adpur.lit.data.files import Decoder, Files, class_folders, complete
from adpur.lit.data.images import Images
from adpur.lit.data.paths import stamp
from adpur.lit.data.published import Official, Published

IMAGES = {"train": 1_281_167, "test": 50_000}
FOLDERS = {"train": "train", "test": "val"}
CLASSES = 1_000


class ImageNet(Published):
    """ImageNet-1K (Russakovsky et al. 2015), split 1,276,167 / 5,000 / 50,000.

    Images are decoded when asked for: take `workers`. The test images are the official validation
    images in the order of their numbers. Class k is the k-th wnid in sorted order. `train/` is
    needed by a fit and by `evaluate: validation` alone.

    Args:
        root: the folder that holds `val` and `train`, each with a folder for each wnid;
            $ADPUR_IMAGENET by default.
        size: side of the central square that is kept.
        resize: length that the shorter side is brought to before.
        kwargs: of `ImageData`.
    """

    classes = CLASSES
    variable = "ADPUR_IMAGENET"
    holds = "val"

    def __init__(
        self, root: str | None = None, size: int = 224, resize: int = 256, **kwargs: Any
    ) -> None:
        super().__init__(root, **kwargs)
        if not 1 <= size <= resize:
            raise ConfigError(f"size: expected 1 to resize={resize}, got {size}")
        self.shape, self.decoder = (3, size, size), Decoder(resize, size, upright=False)

    def official(self, part: Official) -> Images:
        """Images of `train/` or, from row 1,281,167 on, of `val/`."""
        folder = self.folder / FOLDERS[part]
        state = stamp(folder, *sorted(folder.glob("*")))  # changed when an image comes or goes
        return _read(self.folder, part, self.decoder, self.shape, state)


@lru_cache
def _read(
    root: Path, part: Official, decoder: Decoder, shape: tuple[int, int, int], state: object
) -> Images:
    folder = root / FOLDERS[part]
    classes, files, labels = class_folders(folder)
    complete(folder, "class folders", len(classes), CLASSES)
    complete(folder, "images", len(files), IMAGES[part])
    if part == "train":
        return Files(files, labels, 0, decoder, shape)
    order = sorted(range(len(files)), key=lambda i: Path(files[i]).name)
    return Files([files[i] for i in order], labels[order], IMAGES["train"], decoder, shape)
