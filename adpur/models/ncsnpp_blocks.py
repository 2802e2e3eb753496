"""What DDPM++ and NCSN++ are made of: embedding, residual block, attention, resampling."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SKIP = math.sqrt(0.5)
"""What every sum of two branches is scaled by, to keep its variance (Song et al. 2021, App. H)."""


class Embedding(nn.Module):
    """[sin, cos] features of a label and two dense layers, `(B,)` -> `(B, width)`.

    Positional frequencies are 10000^(-i / (half - 1)); Fourier's are 2 pi times fixed normal
    draws of standard deviation 16. The features are computed in fp32 or wider.
    """

    freqs: Tensor | None

    def __init__(self, kind: str, features: int, width: int, log_label: bool) -> None:
        super().__init__()
        self.pairs, self.log_label = features // 2, log_label
        self.register_buffer("freqs", torch.ones(self.pairs) if kind == "fourier" else None)
        if self.freqs is not None and not self.freqs.is_meta:  # there it costs seconds of imports
            nn.init.normal_(self.freqs, std=16.0)
        self.layer0 = nn.Linear(features, width)
        self.layer1 = nn.Linear(width, width)

    def forward(self, label: Tensor, x: Tensor) -> Tensor:
        """The embedding, in the dtype of `x`."""
        label = label.to(torch.promote_types(x.dtype, torch.float32))
        if self.log_label:
            label = label.clamp_min(1e-5).log()
        angles = label[:, None] * self._frequencies(label)
        features = torch.cat([angles.sin(), angles.cos()], dim=1).to(x.dtype)
        return F.silu(self.layer1(F.silu(self.layer0(features))))

    def _frequencies(self, label: Tensor) -> Tensor:
        if self.freqs is not None:
            return 2 * math.pi * self.freqs.to(label.dtype)
        steps = torch.arange(self.pairs, dtype=label.dtype, device=label.device)
        return torch.exp(steps * (-math.log(10000) / (self.pairs - 1)))


class Block(nn.Module):
    """BigGAN's residual block (Song et al. 2021, appendix H), resampling inside, attention after.

    (skip(x) + conv1(silu(norm1(conv0(silu(norm0(x))) + affine(emb))))) / sqrt(2), where both
    branches are resampled before their first convolution.
    """

    def __init__(
        self, inner: int, outer: int, width: int, resize: nn.Module | None = None,
        attend: bool = False, dropout: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        plain = inner == outer and resize is None
        self.norm0 = norm(inner)
        self.conv0 = nn.Conv2d(inner, outer, 3, padding=1)
        self.affine = nn.Linear(width, outer)
        self.norm1 = norm(outer)
        self.dropout = nn.Dropout(dropout)
        self.conv1 = nn.Conv2d(outer, outer, 3, padding=1)
        self.skip = nn.Identity() if plain else nn.Conv2d(inner, outer, 1)
        self.resize = nn.Identity() if resize is None else resize
        self.attention = Attention(outer) if attend else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        """`x` `(B, inner, H, W)` and the label's embedding `(B, width)`."""
        h = self.conv0(self.resize(F.silu(self.norm0(x))))
        h = self.norm1(h + self.affine(emb)[:, :, None, None])
        h = self.conv1(self.dropout(F.silu(h)))
        out: Tensor = self.attention((self.skip(self.resize(x)) + h) * SKIP)
        return out


class Attention(nn.Module):
    """Self-attention of one head over positions (Ho et al. 2020), softmax in fp32 or wider."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(x + proj(softmax(q k / sqrt(C)) v)) / sqrt(2)."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).chunk(3, dim=1)
        wide = torch.promote_types(x.dtype, torch.float32)
        scores = torch.einsum("bcq,bck->bqk", q.to(wide), k.to(wide) / math.sqrt(x.shape[1]))
        h = torch.einsum("bqk,bck->bcq", scores.softmax(dim=2).to(v.dtype), v)
        out: Tensor = (x + self.proj(h.reshape(x.shape))) * SKIP
        return out


class Resample(nn.Module):
    """Twice or half the resolution through separable taps that sum to one (Zhang 2019)."""

    kernel: Tensor

    def __init__(self, taps: Sequence[float], up: bool, padded: bool = True) -> None:
        super().__init__()
        gain = (4 if up else 1) / sum(taps) ** 2
        kernel = torch.tensor([[gain * a * b for a in taps] for b in taps])
        self.register_buffer("kernel", kernel, persistent=False)
        self.up, self.box = up, tuple(taps) == (1, 1)
        self.pad = (len(taps) - 1) // 2 if padded else 0

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> `(B, C, 2 H, 2 W)` or `(B, C, H / 2, W / 2)`."""
        if self.box:
            return F.interpolate(x, scale_factor=2.0) if self.up else F.avg_pool2d(x, 2)
        kernel = self.kernel.to(x).expand(x.shape[1], 1, -1, -1)
        convolve = F.conv_transpose2d if self.up else F.conv2d
        out: Tensor = convolve(x, kernel, stride=2, padding=self.pad, groups=x.shape[1])
        return out


class ImageDown(nn.Module):
    """The residual encoder's step: convolve the image, then halve it.

    All padding comes before the convolution, as if the image lay in a field of zeros.
    """

    def __init__(self, inner: int, outer: int, taps: Sequence[float]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, padding=1 + (len(taps) - 1) // 2)
        self.down = Resample(taps, up=False, padded=False)

    def forward(self, image: Tensor) -> Tensor:
        """`(B, inner, H, W)` -> `(B, outer, H / 2, W / 2)`."""
        half: Tensor = self.down(self.conv(image))
        return half


def norm(channels: int) -> nn.GroupNorm:
    """Groups of at least four channels, at most 32 groups."""
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)
