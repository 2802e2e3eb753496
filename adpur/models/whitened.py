"""A classifier that two CPU cores can train."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adpur.errors import ConfigError


class WhitenedConvNet(nn.Module):
    """The convolutional network of Jordan (2024), "94 % on CIFAR-10 in 3.29 seconds", section 3.

    A frozen 2x2 convolution with the whitening filters of training patches and their negatives;
    then groups of conv - max pool - batch norm - GELU - conv - batch norm - GELU; the maximum
    over space; one linear layer, divided by 9. Batch norms have a shift and no scale, and every
    convolution begins as the identity on its first channels. The defaults have .84 M parameters.

    Call `initialise` with training images before training; without it the first filters are the
    whitening of white noise.

    Args:
        widths: channels of the groups.
        in_channels, classes: of the images and the labels.

    >>> sum(p.numel() for p in WhitenedConvNet().parameters())
    837472
    """

    def __init__(
        self, widths: Sequence[int] = (64, 160, 160), in_channels: int = 3, classes: int = 10
    ) -> None:
        super().__init__()
        if not widths or min(widths) < 8 * in_channels:
            raise ConfigError(
                "WhitenedConvNet: expected widths of at least 8 times in_channels, got "
                f"{list(widths)}"
            )
        filters = 8 * in_channels
        self.whiten = nn.Conv2d(in_channels, filters, 2, bias=False)
        self.whiten.weight.requires_grad_(False)
        edges = zip([filters, *widths], widths, strict=False)
        self.groups = nn.Sequential(*(_group(inner, outer) for inner, outer in edges))
        self.linear = nn.Linear(widths[-1], classes, bias=False)
        with torch.no_grad():
            self.whiten.weight.copy_(_filters(torch.eye(4 * in_channels), in_channels))

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Take the whitening filters from normalised training images `(n, C, H, W)`.

        They are the eigenvectors of the patches' second moments, each over the root of its
        eigenvalue, so that their outputs on the images have unit variance.
        """
        channels = x.shape[1]
        patches = x.double().unfold(2, 2, 1).unfold(3, 2, 1)
        flat = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 4 * channels)
        moments = flat.T @ flat / len(flat)
        self.whiten.weight.copy_(_filters(moments, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, classes)` of normalised images `(B, C, H, W)`."""
        h = self.groups(F.gelu(self.whiten(x)))
        logits: Tensor = self.linear(h.amax(dim=(2, 3))) / 9
        return logits


def _filters(moments: Tensor, channels: int) -> Tensor:
    """Whitening filters and their negatives, `(8 channels, channels, 2, 2)`."""
    values, vectors = torch.linalg.eigh(moments)
    # where patches hardly vary, a filter would only amplify rounding: hence the small constant
    scaled = vectors.T / (values[:, None] + 5e-4).sqrt()
    # LAPACK leaves the sign of an eigenvector open: the largest entry is positive on any machine
    largest = scaled.gather(1, scaled.abs().argmax(1, keepdim=True))
    scaled = (scaled * largest.sign()).reshape(-1, channels, 2, 2)
    return torch.cat([scaled, -scaled])


def _group(inner: int, outer: int) -> nn.Sequential:
    return nn.Sequential(
        _conv(inner, outer), nn.MaxPool2d(2), _norm(outer), nn.GELU(),
        _conv(outer, outer), _norm(outer), nn.GELU(),
    )  # fmt: skip


def _conv(inner: int, outer: int) -> nn.Conv2d:
    conv = nn.Conv2d(inner, outer, 3, padding="same", bias=False)
    with torch.no_grad():
        nn.init.dirac_(conv.weight[:inner])
    return conv


def _norm(width: int) -> nn.BatchNorm2d:
    """Running statistics of few batches (momentum .4), so that they follow fast training."""
    norm = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm
