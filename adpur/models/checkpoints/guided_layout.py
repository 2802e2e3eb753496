"""What the weights of a guided-diffusion U-Net (Dhariwal & Nichol 2021) say of its architecture."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adpur.errors import ConfigError

State = dict[str, Tensor]


@dataclass(frozen=True)
class Hidden:
    """What a state dict does not show: image size, channels per head, the order of qkv's rows."""

    size: int
    head_dim: int
    per_head: bool = True


RELEASED: dict[tuple[int, ...], Hidden] = {
    (256, 256, 512, 512, 1024, 1024, True): Hidden(256, 64),  # 256x256 uncond, LSUN
}
"""Block widths, and whether residual blocks resample, of the networks that were released.

Those with 1000 linear betas. The 64x64 networks have class labels and cosine betas, and
improved-diffusion's CIFAR-10 is told 1000 t / 4000, a label that no `DiscreteVP` gives: neither is
converted unless size and head are given, and then the schedule is the caller's to write.
"""


@dataclass(frozen=True)
class Layout:
    """The architecture a state dict shows (Dhariwal & Nichol 2021, section 3 and Table 4).

    Attributes:
        widths: channels of each level, finest first.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attention: whether each level attends.
        updown: residual blocks that resample, rather than strided and plain convolutions.
        scale_shift: the time embedding scales and shifts (adaptive group normalisation, Eq. 3).
        channels: of the images, and of the output (twice as many with a learned variance).
    """

    widths: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    updown: bool
    scale_shift: bool
    channels: tuple[int, int]

    def config(self, hidden: Hidden) -> dict[str, Any]:
        """Constructor arguments of `UNet2DModel`."""
        down = "ResnetDownsampleBlock2D" if self.updown else "DownBlock2D"
        up = "ResnetUpsampleBlock2D" if self.updown else "UpBlock2D"
        return {
            "sample_size": hidden.size,
            "in_channels": self.channels[0],
            "out_channels": self.channels[1],
            "block_out_channels": list(self.widths),
            "layers_per_block": self.blocks,
            "down_block_types": ["AttnDownBlock2D" if a else down for a in self.attention],
            "up_block_types": ["AttnUpBlock2D" if a else up for a in reversed(self.attention)],
            "downsample_type": "resnet" if self.updown else "conv",
            "upsample_type": "resnet" if self.updown else "conv",
            "resnet_time_scale_shift": "scale_shift" if self.scale_shift else "default",
            "attention_head_dim": hidden.head_dim,
            "norm_num_groups": 32,
            # without it the middle attention of a scale-shift network has no norm at all
            "attn_norm_num_groups": 32,
            "norm_eps": 1e-5,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
        }


def read_layout(state: State) -> Layout:
    """What the names and shapes of `state` say; upsamplers count the levels."""
    if "input_blocks.0.0.weight" not in state or "time_embed.0.weight" not in state:
        raise ConfigError(
            "expected guided-diffusion's U-Net (input_blocks.0.0.weight, time_embed.0.weight), "
            f"got {', '.join(list(state)[:3]) or 'no parameters'}"
        )
    if "label_emb.weight" in state:
        raise ConfigError("expected an unconditional U-Net, got label_emb: it needs class labels")
    ups = {int(key.split(".")[1]) for key in state if key.startswith("output_blocks.")}
    last = 1 + max(ups, default=0)
    levels = 1 + sum(_upsamples(state, i) for i in range(last))
    blocks, rest = divmod(last, levels)
    if rest or blocks < 2:
        raise ConfigError(f"expected equally many output_blocks a level, got {last} for {levels}")
    firsts = [f"input_blocks.{1 + level * blocks}" for level in range(levels)]
    widths = tuple(_shape(state, f"{first}.0.out_layers.3.weight")[0] for first in firsts)
    if _shape(state, "time_embed.0.weight")[1] != widths[0]:
        raise ConfigError(
            f"expected a time embedding as wide as the first level, {widths[0]}, got "
            f"{_shape(state, 'time_embed.0.weight')[1]}; UNet2DModel has no other"
        )
    return Layout(
        widths,
        blocks - 1,
        tuple(f"{first}.1.qkv.weight" in state for first in firsts),
        f"input_blocks.{blocks}.0.op.weight" not in state,
        _shape(state, f"{firsts[0]}.0.emb_layers.1.weight")[0] == 2 * widths[0],
        (_shape(state, "input_blocks.0.0.weight")[1], _shape(state, "out.2.weight")[0]),
    )


def _upsamples(state: State, index: int) -> bool:
    names = ("1.in_layers.0", "2.in_layers.0", "1.conv", "2.conv")
    return any(f"output_blocks.{index}.{name}.weight" in state for name in names)


def _shape(state: State, key: str) -> torch.Size:
    if key not in state:
        raise ConfigError(f"expected {key} in a guided-diffusion U-Net, got none")
    return state[key].shape


def hidden_of(
    layout: Layout, size: int | None, head_dim: int | None, per_head: bool | None
) -> Hidden:
    """What `layout` leaves open, as given or as released."""
    known = RELEASED.get((*layout.widths, layout.updown))
    if known is None and (size is None or head_dim is None):
        raise ConfigError(
            f"expected the widths of a released U-Net, got {layout.widths}; say "
            "--size and --head-dim, which the weights do not show"
        )
    base = known or Hidden(0, 0)
    order = base.per_head if per_head is None else per_head
    return Hidden(size or base.size, head_dim or base.head_dim, order)


def heads_fit(layout: Layout, hidden: Hidden) -> None:
    """Refuse heads that `UNet2DModel` cannot split these widths into."""
    attending = {w for w, a in zip(layout.widths, layout.attention, strict=True) if a}
    odd = [w for w in sorted({*attending, layout.widths[-1]}) if w % hidden.head_dim]
    if odd:
        raise ConfigError(
            f"expected widths {odd} to be multiples of head_dim {hidden.head_dim}; UNet2DModel has "
            "one width of heads: a network with one number of heads at several widths does not fit"
        )
