"""Classifiers of [0, 1] images, with their normalisation inside."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classifier(nn.Module):
    """Logits `(B, classes)` of images `(B, C, H, W)` in [0, 1]; the net sees (x - mean) / std.

    Args:
        net: any module from normalised images to logits (not probabilities).
        shape: (C, H, W) it expects.
        mean, std: one value, or one per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: nn.Module,
        shape: tuple[int, int, int],
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        self.net = net
        self.shape = shape
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of [0, 1] images."""
        logits: Tensor = self.net((x - self.mean.to(x)) / self.std.to(x))
        return logits


class CifarResNet(nn.Module):
    """The CIFAR residual network of He et al. (2016), section 4.2: depth 6 blocks + 2.

    Three stages of `blocks` basic blocks; shortcuts of option A (stride-2 subsampling and
    zero-padded channels, no parameters); global average pooling and one linear head.

    >>> sum(p.numel() for p in CifarResNet(blocks=3).parameters())
    269722
    """

    def __init__(
        self, blocks: int = 3, width: int = 16, in_channels: int = 3, classes: int = 10
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, classes)`."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.layer3(self.layer2(self.layer1(h)))
        logits: Tensor = self.linear(h.mean(dim=(2, 3)))
        return logits


class _Block(nn.Module):
    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.stride, self.pad = stride, (outer - inner) // 2

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(h + shortcut)


def _stage(inner: int, outer: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Block(inner, outer, stride)
    return nn.Sequential(first, *(_Block(outer, outer, 1) for _ in range(blocks - 1)))
