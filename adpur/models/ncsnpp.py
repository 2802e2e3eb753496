"""DDPM++ and NCSN++, the U-Nets of score_sde and of EDM's CIFAR-10 models, as one network."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adpur.errors import ConfigError
from adpur.models.ncsnpp_blocks import SKIP, Block, Embedding, ImageDown, Resample, norm

Make = Callable[..., Block]


class NCSNpp(nn.Module):
    """The U-Net of Song et al. (2021), section 4.1 and appendix H; EDM's is Table 7 of its paper.

    `net(x, label) -> (B, out_channels, H, W)`. DDPM++ is `embedding="positional"`,
    `encoder="standard"`, `resample_filter=(1, 1)`; NCSN++ is `"fourier"`, `"residual"`,
    `(1, 3, 3, 1)` and `noise_mult=2`. EDM's CIFAR-10 networks have `channel_mult=(2, 2, 2)`.

    Args:
        sample_size: H = W of the images; names the levels that `attn_resolutions` choose.
        in_channels, out_channels: of the images.
        channels: width, multiplied by `channel_mult[i]` at level i (resolution H / 2^i).
        num_blocks: residual blocks per level, one more on the way up.
        attn_resolutions: where every block down, and the last block up, ends in self-attention.
        embedding: "positional" (Ho et al. 2020) or "fourier" (random features, Song et al. 2021).
        noise_mult: width of the embedding over `channels`.
        encoder: "standard", or "residual": the image itself, downsampled, joins each level.
        resample_filter: separable taps of up- and downsampling; (1, 1) is mean and repeat.
        log_label: embed log(label), as score_sde's Fourier networks do.
        dropout: in training mode, inside every block.

    >>> with torch.device("meta"):
    ...     net = NCSNpp(channel_mult=(2, 2, 2))
    >>> sum(p.numel() for p in net.parameters())
    55732739
    """

    def __init__(
        self, sample_size: int = 32, in_channels: int = 3, out_channels: int = 3,
        channels: int = 128, channel_mult: Sequence[int] = (1, 2, 2, 2), num_blocks: int = 4,
        attn_resolutions: Sequence[int] = (16,), embedding: str = "positional",
        noise_mult: int = 1, encoder: str = "standard",
        resample_filter: Sequence[float] = (1, 1), log_label: bool = False, dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.arguments: dict[str, Any] = {
            "sample_size": sample_size, "in_channels": in_channels, "out_channels": out_channels,
            "channels": channels, "channel_mult": list(channel_mult), "num_blocks": num_blocks,
            "attn_resolutions": list(attn_resolutions), "embedding": embedding,
            "noise_mult": noise_mult, "encoder": encoder, "log_label": log_label,
            "resample_filter": list(resample_filter), "dropout": dropout,
        }  # fmt: skip
        _check(embedding, encoder, sample_size, len(channel_mult))
        widths = [channels * m for m in channel_mult]
        make = partial(Block, width=4 * channels, dropout=dropout)
        self.embed = Embedding(embedding, noise_mult * channels, 4 * channels, log_label)
        self.enter = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.encoder, skips = self._encoder(make, widths)
        here = widths[-1]
        self.middle = nn.ModuleList([make(here, here, attend=True), make(here, here)])
        self.decoder = self._decoder(make, widths, skips)
        self.out_norm = norm(widths[0])
        self.out_conv = nn.Conv2d(widths[0], out_channels, 3, padding=1)
        _initialise(self)

    def _encoder(self, make: Make, widths: list[int]) -> tuple[nn.ModuleList, list[int]]:
        """The levels down, and the channels of every skip connection."""
        args = self.arguments
        levels, here, image = nn.ModuleList(), args["channels"], args["in_channels"]
        skips = [here]
        for i, outer in enumerate(widths):
            level = Level()
            if i:
                down = Resample(args["resample_filter"], up=False)
                level.add_module("resize", make(here, here, resize=down))
                skips.append(here)
            if i and args["encoder"] == "residual":
                level.add_module("image", ImageDown(image, here, args["resample_filter"]))
                image = here
            for _ in range(args["num_blocks"]):
                level.blocks.append(make(here, outer, attend=self._attends(i)))
                here = outer
                skips.append(here)
            levels.append(level)
        return levels, skips

    def _decoder(self, make: Make, widths: list[int], skips: list[int]) -> nn.ModuleList:
        """The levels up, lowest resolution first."""
        levels, here = nn.ModuleList(), widths[-1]
        for i, outer in reversed(list(enumerate(widths))):
            level = Level()
            if i + 1 < len(widths):
                up = Resample(self.arguments["resample_filter"], up=True)
                level.add_module("resize", make(here, here, resize=up))
            for left in reversed(range(self.arguments["num_blocks"] + 1)):
                attend = self._attends(i) and not left
                level.blocks.append(make(here + skips.pop(), outer, attend=attend))
                here = outer
            levels.append(level)
        return levels

    def _attends(self, level: int) -> bool:
        return self.arguments["sample_size"] >> level in self.arguments["attn_resolutions"]

    def extra_repr(self) -> str:
        """The constructor's arguments, which modules alone do not show."""
        return json.dumps(self.arguments, sort_keys=True)

    def fingerprinted(self) -> dict[str, Any]:
        """See `adpur.models.checkpoints.fingerprint`."""
        return self.arguments

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """The network's output for images `(B, C, H, W)` and labels `(B,)` of any real type."""
        emb = self.embed(label, x)
        h = self.enter(x)
        skips = list(self._down(x, h, emb))
        h = skips[-1]
        for block in self.middle:
            h = block(h, emb)
        for level in cast(Iterable[Level], self.decoder):
            h = h if level.resize is None else level.resize(h, emb)
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), emb)
        out: Tensor = self.out_conv(F.silu(self.out_norm(h)))
        return out

    def _down(self, image: Tensor, h: Tensor, emb: Tensor) -> Iterator[Tensor]:
        """Every activation that the way up is given, the last one lowest."""
        yield h
        for level in cast(Iterable[Level], self.encoder):
            if level.resize is not None:
                h = level.resize(h, emb)
                if level.image is not None:
                    h = image = (level.image(image) + h) * SKIP
                yield h
            for block in level.blocks:
                h = block(h, emb)
                yield h


class Level(nn.Module):
    """One resolution: the block that changes to it, and those that stay."""

    resize: Block | None
    image: ImageDown | None

    def __init__(self) -> None:
        super().__init__()
        self.register_module("resize", None)  # in this order, which is score_sde's
        self.register_module("image", None)
        self.blocks = nn.ModuleList()


def _initialise(net: nn.Module) -> None:
    """Glorot's uniform; zero where a residual branch or the network ends (Ho et al. 2020)."""
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            last = name.endswith(("conv1", "proj", "out_conv"))
            (nn.init.zeros_ if last else nn.init.xavier_uniform_)(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def _check(embedding: str, encoder: str, size: int, levels: int) -> None:
    for name, value, known in (
        ("embedding", embedding, ("positional", "fourier")),
        ("encoder", encoder, ("standard", "residual")),
    ):
        if value not in known:
            raise ConfigError(f"NCSNpp: expected {name} {' or '.join(known)}, got {value!r}")
    if size % 2 ** (levels - 1):
        raise ConfigError(
            f"NCSNpp: expected sample_size divisible by {2 ** (levels - 1)} for {levels} levels "
            f"of channel_mult, got {size}"
        )
