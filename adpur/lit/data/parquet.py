"""Images in parquet files, as Hugging Face's hub keeps data sets."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from adpur.errors import ConfigError
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.data.files import Decoder
from adpur.lit.data.images import Images, held_out
from adpur.lit.data.paths import expanded

PARTS: dict[str, Split] = {"train": "train", "validation": "validation", "valid": "validation",
                           "val": "validation", "dev": "validation", "test": "test"}  # fmt: skip
"""Splits by what file names begin with (`test-00000-of-00002.parquet`)."""


class Parquet(ImageData):
    """A data set of Hugging Face's hub, from its parquet files on the disk; needs `adpur[parquet]`.

    Encoded images are held in memory and decoded when asked for, as `Folder` decodes them. Without
    validation images, a fixed stratified tenth of the training images is held out.

    Args:
        root: the folder of `train-00000-of-00001.parquet`, `test-...` and so on, or one that has
            them in `data/`.
        size: shorter side to resize to, then side of the central square that is kept.
        grey: one channel instead of three.
        image: the column of images; the only one that looks like it by default.
        label: the column of class numbers; `label` or `labels` by default (`fine_label` and the
            like are to be named).
        kwargs: of `ImageData`.
    """

    def __init__(
        self, root: str, size: int | None = None, grey: bool = False, image: str | None = None,
        label: str | None = None, **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.root, self.parts, first = root, dict[str, Images](), 0
        decoder, names, classes = Decoder(size, size, grey), list[str](), 0
        for split, files in _layout(expanded(root)).items():
            table = _table(files)
            x, y = _columns(table, files[0], image, label)
            self.parts[split] = Encoded(x, y, first, decoder, f"{files[0].parent}/{split}")
            names, classes = _names(table, y[0]), max(classes, int(y[1].max()) + 1)
            first += len(x)
        self.labels = {name: k for k, name in enumerate(names)}
        self.classes = max(classes, len(names))
        self.shape = tuple(next(iter(self.parts.values()))[0][0].shape)  # type: ignore[assignment]

    def split(self, name: Split) -> Dataset[Batch]:
        """Images in [0, 1] under rows that count through train, validation and test."""
        parts = dict(self.parts)
        if "train" in parts and "validation" not in parts:
            parts |= held_out(parts["train"], max(1, len(parts["train"]) // 10))
        if name not in parts:
            raise ConfigError(f"{self.root} has parquet files for {', '.join(parts)}, not {name}")
        return parts[name]


class Encoded(Images):
    """Image files held in memory."""

    def __init__(
        self, held: Sequence[bytes], y: tuple[str, Tensor], first: int, decoder: Decoder, what: str
    ) -> None:
        super().__init__(y[1], first + torch.arange(len(held)))
        self.held, self.decoder, self.what = held, decoder, what

    def pixels(self, positions: Tensor) -> Tensor:
        """Each decoded anew."""
        images = [self._decoded(i) for i in positions.tolist()]
        if strange := [k for k, image in enumerate(images) if image.shape != images[0].shape]:
            sizes = [tuple(images[k].shape) for k in (strange[0], 0)]
            raise ConfigError(
                f"{self.what}: image {int(positions[strange[0]])} is {sizes[0]}, another {sizes[1]}"
                "; write `size:`"
            )
        return torch.stack(images)

    def _decoded(self, i: int) -> Tensor:
        return self.decoder(Path(f"{self.what}, image {i}"), self.held[i])


def _layout(root: Path) -> dict[Split, list[Path]]:
    """The files of each split, sorted."""
    found: dict[Split, list[Path]] = {}
    files = sorted(root.glob("*.parquet")) or sorted(root.glob("data/*.parquet"))
    if not files:
        raise ConfigError(f"root: expected a folder of parquet files, found none in {root}")
    for file in files:
        split = PARTS.get(file.name.replace(".", "-").split("-")[0].lower())
        if split is None:
            raise ConfigError(
                f"{file}: expected a name that begins with train, validation or test, as the "
                "hub's do (test-00000-of-00001.parquet)"
            )
        found.setdefault(split, []).append(file)
    return {name: found[name] for name in ("train", "validation", "test") if name in found}


def _table(files: Sequence[Path]) -> Any:
    try:
        from pyarrow import ArrowException, concat_tables
        from pyarrow.parquet import read_table
    except ImportError as error:
        raise ConfigError("parquet files need pyarrow: pip install 'adpur[parquet]'") from error
    try:
        return concat_tables([read_table(file) for file in files])
    except (ArrowException, OSError) as error:
        told = (str(error).splitlines() or ["?"])[0]
        raise ConfigError(f"{files[0]}: not whole parquet files of one kind ({told})") from error


def _columns(
    table: Any, file: Path, image: str | None, label: str | None
) -> tuple[list[bytes], tuple[str, Tensor]]:
    """Encoded images, and the labels under their column's name."""
    names = table.column_names
    pictures = [n for n in names if _holds_images(table.schema.field(n).type)]
    image = image or (pictures[0] if len(pictures) == 1 else "")
    label = label or next((n for n in ("label", "labels") if n in names), "")
    if image not in names or label not in names:
        raise ConfigError(
            f"{file}: expected columns of images and of labels, got {', '.join(names)}; write "
            "`image:` and `label:` in the data block"
        )
    held = [e["bytes"] if isinstance(e, dict) else e for e in table[image].to_pylist()]
    if not held or not all(isinstance(e, bytes) for e in held):
        raise ConfigError(f"{file}: {image} does not hold the images themselves, but their names")
    y = table[label].to_pylist()
    if not all(isinstance(v, int) and v >= 0 for v in y):
        raise ConfigError(f"{file}: expected class numbers from 0 on in {label}, got {y[:3]}")
    return held, (label, torch.tensor(y))


def _holds_images(kind: Any) -> bool:
    """Whether a column's type is the hub's image: its bytes, and a path beside them."""
    fields = {kind.field(i).name for i in range(kind.num_fields)}
    return "bytes" in fields or str(kind) in ("binary", "large_binary")


def _names(table: Any, label: str) -> list[str]:
    """The classes in order, where the file says them."""
    told = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        names = json.loads(told)["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []
