"""Wide residual networks, under the parameter names of the robustness community's checkpoints."""

from torch import Tensor, nn

from adpur.errors import ConfigError

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}


class WideResNet(nn.Module):
    """The wide residual network of Zagoruyko & Komodakis (2016), Table 1: depth 6n + 4.

    Three stages of n pre-activated basic blocks, 16k, 32k and 64k channels wide; no dropout.
    State dicts of RobustBench and TRADES (`block1.layer.0.convShortcut.weight`) load unchanged.

    Args:
        depth: 6n + 4.
        widen: the factor k.
        activation: `relu`, or `silu` (Gowal et al. 2020).
        in_channels, classes: of the images and the labels.

    >>> sum(p.numel() for p in WideResNet(depth=10, widen=1).parameters())
    77850
    """

    def __init__(
        self, depth: int = 28, widen: int = 10, activation: str = "relu", in_channels: int = 3,
        classes: int = 10,
    ) -> None:  # fmt: skip
        super().__init__()
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ConfigError(f"expected a depth 6n + 4, got {depth}; write 28 or 70, for example")
        if activation not in ACTIVATIONS:
            raise ConfigError(f"expected an activation relu or silu, got {activation!r}")
        widths = [16 * widen, 32 * widen, 64 * widen]
        self.conv1 = _conv3(in_channels, 16)
        self.block1 = _Stage(16, widths[0], blocks, 1, activation)
        self.block2 = _Stage(widths[0], widths[1], blocks, 2, activation)
        self.block3 = _Stage(widths[1], widths[2], blocks, 2, activation)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.activation = ACTIVATIONS[activation]()
        self.fc = nn.Linear(widths[2], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, classes)` of normalised images `(B, C, H, W)`."""
        h = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(self.activation(self.bn1(h)).mean(dim=(2, 3)))
        return logits


class _Stage(nn.Module):
    """n blocks, the first of which changes width and resolution; a child named `layer`."""

    def __init__(self, inner: int, outer: int, blocks: int, stride: int, activation: str) -> None:
        super().__init__()
        first = _Block(inner, outer, stride, activation)
        rest = (_Block(outer, outer, 1, activation) for _ in range(blocks - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.layer(x)
        return h


class _Block(nn.Module):
    """B(3, 3), normalised and activated before each convolution (section 2)."""

    def __init__(self, inner: int, outer: int, stride: int, activation: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv1 = _conv3(inner, outer, stride)
        self.bn2 = nn.BatchNorm2d(outer)
        self.conv2 = _conv3(outer, outer)
        self.activation = ACTIVATIONS[activation]()
        same = inner == outer
        self.convShortcut = None if same else nn.Conv2d(inner, outer, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        act = self.activation(self.bn1(x))
        # a shortcut that convolves starts from the activated input, an identity from the raw one
        shortcut = x if self.convShortcut is None else self.convShortcut(act)
        h: Tensor = self.conv2(self.activation(self.bn2(self.conv1(act))))
        return h + shortcut


def _conv3(inner: int, outer: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
