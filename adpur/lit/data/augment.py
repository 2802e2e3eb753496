"""What training does to an image before a network sees it, by keyed draws."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adpur.errors import ConfigError
from adpur.noise import Noise, Stream


@dataclass(frozen=True)
class Augment:
    """A random horizontal flip, and a random crop after padding with black.

    Args:
        flip: each image is mirrored with probability 1/2.
        crop: pixels of padding on each side; all `(2 crop + 1)^2` offsets are equally likely.
    """

    flip: bool = False
    crop: int = 0

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ConfigError(f"crop: expected pixels of padding such as 4, got {self.crop}")

    def __call__(self, x: Tensor, noise: Noise) -> Tensor:
        """Images `(B, C, H, W)` of the same shape, each moved by a draw of its own."""
        if not (self.flip or self.crop):
            return x
        draw = noise.uniform(x.new_empty(len(x), 3, dtype=torch.float64), Stream.AUGMENT)
        top, left = (draw[:, 1:] * (2 * self.crop + 1)).long().unbind(1)
        rows = top[:, None] + torch.arange(x.shape[2])
        columns = left[:, None] + torch.arange(x.shape[3])
        columns = torch.where((draw[:, :1] < 0.5) & self.flip, columns.flip(1), columns)
        return _taken(F.pad(x, [self.crop] * 4), rows, columns)


def _taken(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pixels `(B, C, h, w)` at each image's rows `(B, h)` and columns `(B, w)`."""
    across = columns[:, None, None].expand(-1, *x.shape[1:3], -1)
    narrow = x.gather(3, across)
    return narrow.gather(2, rows[:, None, :, None].expand(-1, x.shape[1], -1, columns.shape[1]))
