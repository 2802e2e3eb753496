"""U-Nets of guided-diffusion (Dhariwal & Nichol 2021) as diffusers' `UNet2DModel`."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.models.checkpoints.guided_layout import Hidden, State, heads_fit, hidden_of, read_layout

RES = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ATTENTION = {"norm": "group_norm", "proj_out": "to_out.0"}
SAMPLERS = {"op": "conv", "conv": "conv"}
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}


def convert_guided(
    state: State, size: int | None = None, head_dim: int | None = None, per_head: bool | None = None
) -> tuple[dict[str, Any], State]:
    """A guided-diffusion U-Net's state dict as `UNet2DModel` arguments and state dict.

    Image size and channels per head (Table 4: 64) leave no trace in the weights: they are known
    for the released networks, 256x256 unconditional and LSUN, 64x64, and improved-diffusion's
    CIFAR-10, and must be given for any other. Learned variances stay, C more output channels.

    Args:
        state: parameters by name, as released.
        size: height and width of the images.
        head_dim: channels of an attention head, one number for all levels.
        per_head: whether the rows of qkv run head by head (the older order, the default) rather
            than q, k, v.

    Raises:
        ConfigError: for what `UNet2DModel` cannot compute, or names and shapes that do not fit.
    """
    layout = read_layout(state)
    hidden = hidden_of(layout, size, head_dim, per_head)
    config = layout.config(hidden)
    heads_fit(layout, hidden)
    converted: State = {}
    for key, value in state.items():
        module, kind = key.rsplit(".", 1)
        for place, part in _placed(module, value, layout.blocks, hidden):
            converted[f"{place}.{kind}"] = part
    _same_shapes(config, converted)
    return config, converted


def _placed(
    module: str, value: Tensor, blocks: int, hidden: Hidden
) -> Iterator[tuple[str, Tensor]]:
    """Where the parameter of a guided-diffusion module goes; qkv goes to three places."""
    if module in ENDS:
        yield ENDS[module], value
        return
    where, inner = _block(module, blocks)
    if inner == "qkv":
        for name, part in zip("qkv", _split(value, hidden), strict=True):
            yield f"{where}.to_{name}", part
    elif inner == "proj_out":
        yield f"{where}.to_out.0", value.flatten(1) if value.ndim > 1 else value
    else:
        known = RES | ATTENTION | SAMPLERS
        if inner not in known:
            raise _unknown(module)
        yield f"{where}.{known[inner]}", value


def _block(module: str, blocks: int) -> tuple[str, str]:
    """The submodule of `UNet2DModel`, and the rest of the name."""
    part, *names = module.split(".")
    if part == "middle_block" and names[0] in MIDDLE:
        return f"mid_block.{MIDDLE[names[0]]}", ".".join(names[1:])
    if part not in ("input_blocks", "output_blocks") or len(names) < 3:
        raise _unknown(module)
    inner, down = ".".join(names[2:]), part == "input_blocks"
    level, k = divmod(int(names[0]) - down, blocks + 1)
    if inner in ("qkv", *ATTENTION):
        place = f"attentions.{k}"
    elif down and k == blocks:
        place = "downsamplers.0"
    elif names[1] == "0":
        place = f"resnets.{k}"
    else:
        place = "upsamplers.0"
    return f"{'down' if down else 'up'}_blocks.{level}.{place}", inner


def _split(value: Tensor, hidden: Hidden) -> tuple[Tensor, ...]:
    """q, k, v `(C, C)` or `(C,)` of a joint 1x1 convolution `(3C, C, 1)` or its bias `(3C,)`."""
    rows = value.flatten(1) if value.ndim > 1 else value
    if not hidden.per_head:
        return rows.chunk(3)
    heads = rows.reshape(-1, 3, hidden.head_dim, *rows.shape[1:])
    return tuple(part.flatten(0, 1) for part in heads.unbind(1))


def _unknown(module: str) -> ConfigError:
    return ConfigError(f"{module}: not a name of guided-diffusion's U-Net that adpur can place")


def _same_shapes(config: dict[str, Any], converted: State) -> None:
    """Every parameter of the `UNet2DModel` is filled, once, by one of its shape."""
    from diffusers import UNet2DModel

    with torch.device("meta"):
        wanted = {k: v.shape for k, v in UNet2DModel(**config).state_dict().items()}
    found = {k: v.shape for k, v in converted.items()}
    wrong = [k for k in sorted({*wanted, *found}) if wanted.get(k) != found.get(k)]
    if wrong:
        key = wrong[0]
        raise ConfigError(
            f"{len(wrong)} parameters do not fit UNet2DModel, first {key}: expected "
            f"{tuple(wanted.get(key, ())) or 'none'}, got {tuple(found.get(key, ())) or 'none'}"
        )
