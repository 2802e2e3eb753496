"""Shapes and ranges, named once.

Shape legend: B rows, C channels, H and W pixels, K reverse steps, S stages of a purifier,
N evaluation draws, E copies for expectation over transformation (EOT).
Images are `(B, C, H, W)`; an image outside a purifier lies in [0, 1], inside it in [-1, 1].
"""

from functools import reduce

import torch
from torch import Tensor

ABSENT = "absent"
"""Key of a dataclass field's metadata: what records and fingerprints without the field mean.

Needed for a new field of a schedule (see `adpur.models.checkpoints.fingerprint`), and for a field
whose default is changed (see `adpur.judging.records.differences`); elsewhere a field that is
lacking is at its default.
"""


def expand(v: Tensor, like: Tensor) -> Tensor:
    """Per-row values `(B,)` as `(B, 1, 1, 1)` in the dtype and on the device of `like`.

    >>> import torch
    >>> expand(torch.tensor([1.0, 2.0]), torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 1, 1, 1])
    """
    # times live on the host: a copy that waits would stop the accelerator at every step
    v = v.to(like.dtype).to(like.device, non_blocking=True)
    return v.view(-1, *[1] * (like.dim() - 1))


def where(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """`a` in the rows `(B,)` that are true and `b` elsewhere, both `(B, ...)`."""
    return torch.where(rows.view(-1, *[1] * (a.dim() - 1)), a, b)


def root(v: Tensor) -> Tensor:
    """sqrt(max(v, 0)), with the gradient 0 at 0, where it would be infinite."""
    positive = v > 0
    return torch.where(positive, torch.where(positive, v, 1.0).sqrt(), 0.0)


def ordered_mean(v: Tensor) -> Tensor:
    """Mean over the first dimension, added in a fixed order: no bit depends on the others."""
    return reduce(torch.add, v.unbind()) / len(v)


def to_signed(x: Tensor) -> Tensor:
    """[0, 1] to [-1, 1], where diffusion models live."""
    return 2 * x - 1


def to_unit(x: Tensor) -> Tensor:
    """[-1, 1] to [0, 1], where attacks and classifiers live."""
    return (x + 1) / 2
