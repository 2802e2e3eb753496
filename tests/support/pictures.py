"""Small image files of random pixels, and what every data module owes."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from adpur.lit.data.base import ImageData

RANDOM = np.random.default_rng(5)


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def draw(file: Path, height: int = 64, width: int = 64, mode: str = "RGB") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    bands = () if mode == "L" else (len(mode),)
    Image.fromarray(RANDOM.integers(0, 256, (height, width, *bands), dtype=np.uint8)).save(file)
    return file


def colour(file: Path) -> float:
    """Share of a figure's pixels that are coloured: data are, axes and words are black."""
    return float((np.ptp(np.asarray(Image.open(file).convert("RGB"), np.int16), 2) > 30).mean())


def as_tensor(file: Path, mode: str = "RGB") -> torch.Tensor:
    pixels = np.asarray(Image.open(file).convert(mode), np.float32)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1) / 255


def sound(data: ImageData, sizes: dict[str, int]) -> None:
    """Splits of these sizes, rows that differ, images in [0, 1] of one shape."""
    parts = {name: data.stacked(name) for name in ("train", "validation", "test")}
    assert {name: len(x) for name, (x, _, _) in parts.items()} == sizes
    assert len(torch.cat([p[2] for p in parts.values()]).unique()) == sum(sizes.values())
    for x, y, index in parts.values():
        assert x.shape[1:] == data.shape and x.min() >= 0 and 0.5 < x.max() <= 1
        assert y.dtype == index.dtype == torch.int64 and y.max() < data.classes
