"""A U-Net that two CPU cores can train."""

import json
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adpur.errors import ConfigError
from adpur.models.ncsnpp_blocks import Embedding

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class LeanUNet(nn.Module):
    """A convolutional U-Net without attention, chosen for accuracy per CPU second.

    `net(x, label) -> (B, out_channels, H, W)`. At each resolution stand `blocks` residual blocks
    of one width; resolutions are changed by a strided 2x2 convolution on the way down, and by a
    1x1 convolution with a pixel shuffle (Shi et al. 2016) on the way up, where a 1x1 convolution
    mixes in what the way down left at that resolution. The defaults have 1.58 M parameters and
    222 M multiplications a 32x32 image.

    Args:
        sample_size: H = W of the images; at least 2^(len(widths) - 1) and divisible by it.
        in_channels, out_channels: of the images; `out_channels` is `in_channels` if None.
        widths: channels at each resolution, full resolution first; multiples of `groups`.
        blocks: residual blocks at each resolution, the same number on both ways; the lowest
            resolution has its blocks once.
        embedding: width of the time embedding.
        groups: of every group normalisation.

    >>> sum(p.numel() for p in LeanUNet().parameters())
    1583811
    """

    def __init__(
        self, sample_size: int = 32, in_channels: int = 3, out_channels: int | None = None,
        widths: Sequence[int] = (32, 64, 128), blocks: Sequence[int] = (2, 2, 3),
        embedding: int = 128, groups: int = 8,
    ) -> None:  # fmt: skip
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        self.arguments: dict[str, Any] = {
            "sample_size": sample_size, "in_channels": in_channels, "out_channels": out_channels,
            "widths": list(widths), "blocks": list(blocks), "embedding": embedding,
            "groups": groups,
        }  # fmt: skip
        _check(sample_size, widths, blocks, groups)

        def stack(width: int, count: int) -> nn.ModuleList:
            return nn.ModuleList(LeanBlock(width, embedding, groups) for _ in range(count))

        pairs = list(pairwise(widths))
        self.embed = Embedding("positional", embedding, embedding, log_label=False)
        self.enter = nn.Conv2d(in_channels, widths[0], 3, padding=1)
        self.down = nn.ModuleList(map(stack, widths, blocks))
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, 2) for fine, coarse in pairs)
        self.grow = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in pairs)
        self.mix = nn.ModuleList(nn.Conv2d(2 * fine, fine, 1) for fine, _ in pairs)
        self.up = nn.ModuleList(map(stack, widths[:-1], blocks[:-1]))
        self.out_norm = nn.GroupNorm(groups, widths[0])
        self.out_conv = _zeroed(nn.Conv2d(widths[0], out_channels, 3, padding=1))

    def extra_repr(self) -> str:
        """The constructor's arguments, which modules alone do not show."""
        return json.dumps(self.arguments, sort_keys=True)

    def fingerprinted(self) -> dict[str, Any]:
        """See `adpur.models.checkpoints.fingerprint`."""
        return self.arguments

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """The network's output for images `(B, C, H, W)` and labels `(B,)` of any real type."""
        emb = self.embed(label, x)
        h, skips = self.enter(x), []
        for level, stack in enumerate(self.down):
            h = _through(stack, h, emb)
            if level < len(self.shrink):
                skips.append(h)
                h = self.shrink[level](h)
        for level in reversed(range(len(self.up))):
            h = F.pixel_shuffle(self.grow[level](h), 2)
            h = self.mix[level](torch.cat([h, skips[level]], dim=1))
            h = _through(self.up[level], h, emb)
        out: Tensor = self.out_conv(F.silu(self.out_norm(h)))
        return out


class LeanBlock(nn.Module):
    """x + conv1(silu(norm1(conv0(silu(norm0(x)))) (1 + scale) + shift)); the time sets both."""

    def __init__(self, width: int, embedding: int, groups: int) -> None:
        super().__init__()
        self.norm0 = nn.GroupNorm(groups, width)
        self.conv0 = nn.Conv2d(width, width, 3, padding=1)
        self.norm1 = nn.GroupNorm(groups, width)
        self.affine = _zeroed(nn.Linear(embedding, 2 * width))
        self.conv1 = _zeroed(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """A block of images `(B, width, H, W)` under embeddings `(B, embedding)`."""
        scale, shift = self.affine(emb)[:, :, None, None].chunk(2, dim=1)
        h = self.conv0(F.silu(self.norm0(x)))
        out: Tensor = x + self.conv1(F.silu(self.norm1(h) * (1 + scale) + shift))
        return out


def _through(stack: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
    for block in cast(Iterable[nn.Module], stack):
        h = block(h, emb)
    return h


def _zeroed(layer: Layer) -> Layer:
    """The layer with zero weights: a residual branch begins as nothing (Ho et al. 2020)."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _check(size: int, widths: Sequence[int], blocks: Sequence[int], groups: int) -> None:
    if len(widths) != len(blocks) or not widths or min(blocks) < 1:
        raise ConfigError(
            "LeanUNet: expected as many widths as numbers of blocks, each of at least 1 block, got "
            f"widths {list(widths)} and blocks {list(blocks)}"
        )
    if groups < 1 or any(width < groups or width % groups for width in widths):
        raise ConfigError(
            f"LeanUNet: expected widths that are multiples of groups = {groups}, got {list(widths)}"
        )
    factor = 2 ** (len(widths) - 1)
    if size < factor or size % factor:
        raise ConfigError(
            f"LeanUNet: {len(widths)} resolutions need a sample_size that {factor} divides, "
            f"got {size}"
        )
