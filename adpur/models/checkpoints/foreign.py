"""The names and layouts of EDM's and score_sde's networks, brought to `NCSNpp`."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.models.checkpoints.unpickle import Record
from adpur.models.ncsnpp import NCSNpp
from adpur.models.ncsnpp_blocks import Attention, Block, ImageDown

Converted = tuple[dict[str, Any], dict[str, Tensor]]
"""Constructor arguments and a state dict."""

EDM_DEFAULTS = {
    "model_channels": 128, "channel_mult": [1, 2, 2, 2], "channel_mult_emb": 4, "num_blocks": 4,
    "attn_resolutions": [16], "dropout": 0.1, "embedding_type": "positional",
    "channel_mult_noise": 1, "encoder_type": "standard", "decoder_type": "standard",
    "resample_filter": [1, 1],
}  # fmt: skip
"""What EDM's pickles leave out of a network's arguments."""

EDM_BLOCK = {"attention.norm": "norm2", "attention.qkv": "qkv", "attention.proj": "proj"}
SDE_BLOCK = {
    "norm0": "GroupNorm_0", "conv0": "Conv_0", "affine": "Dense_0", "norm1": "GroupNorm_1",
    "conv1": "Conv_1", "skip": "Conv_2",
}  # fmt: skip


def from_edm(network: Record, where: str) -> Converted:
    """EDM's raw network `SongUNet`, unconditional; augmentation labels are zero outside training.

    Its attention stores q, k and v of a channel side by side; here they are three blocks.
    """
    given: dict[str, Any] = EDM_DEFAULTS | network.part("_init_kwargs")
    if lacking := sorted({"img_resolution", "in_channels", "out_channels"} - given.keys()):
        raise ConfigError(f"{where}: its {network.kind} was made without {', '.join(lacking)}")
    odd = {
        "network": (network.kind, "SongUNet"), "label_dim": (given.get("label_dim", 0), 0),
        "decoder_type": (given["decoder_type"], "standard"),
        "channel_mult_emb": (given["channel_mult_emb"], 4),
    }  # fmt: skip
    for name, (got, expected) in odd.items():
        if got != expected:
            raise ConfigError(f"{where}: expected {name} {expected!r}, got {got!r}; not converted")
    arguments = {
        "sample_size": given["img_resolution"], "in_channels": given["in_channels"],
        "out_channels": given["out_channels"], "channels": given["model_channels"],
        "channel_mult": list(given["channel_mult"]), "num_blocks": given["num_blocks"],
        "attn_resolutions": list(given["attn_resolutions"]), "dropout": given["dropout"],
        "embedding": given["embedding_type"], "noise_mult": given["channel_mult_noise"],
        "encoder": given["encoder_type"], "resample_filter": list(given["resample_filter"]),
    }  # fmt: skip
    unused = re.compile(r"map_augment\.weight|.*\.resample_filter")
    found = {k: v for k, v in network.tensors().items() if not unused.fullmatch(k)}
    return arguments, _assemble(arguments, found, edm_names, _edm_layout, where)


def from_score_sde(found: dict[str, Tensor], size: int, where: str) -> Converted:
    """score_sde's `ncsnpp` with BigGAN blocks, from `all_modules` without that prefix."""
    try:
        arguments = score_sde_arguments(found, size)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"{where}: expected score_sde's ncsnpp network with BigGAN blocks and nothing "
            f"progressive at its output, got another ({error})"
        ) from error
    return arguments, _assemble(arguments, found, score_sde_names, _sde_layout, where)


def edm_names(net: NCSNpp) -> Iterator[tuple[str, list[str]]]:
    """Every name of our state dict with EDM's name of it."""
    size, levels = net.arguments["sample_size"], len(net.encoder)
    prefixes = {"embed.freqs": "map_noise.freqs", "enter": f"enc.{size}x{size}_conv"}
    prefixes |= {f"embed.layer{k}": f"map_layer{k}" for k in (0, 1)}
    prefixes |= {f"out_{part}": f"dec.{size}x{size}_aux_{part}" for part in ("norm", "conv")}
    for i in range(levels):
        here, j = f"{size >> i}x{size >> i}", levels - 1 - i
        prefixes |= {f"encoder.{i}.resize": f"enc.{here}_down"}
        prefixes |= {f"encoder.{i}.image.conv": f"enc.{here}_aux_residual"}
        prefixes |= {f"decoder.{j}.resize": f"dec.{here}_up"}
        for k in range(net.arguments["num_blocks"] + 1):
            prefixes |= {f"encoder.{i}.blocks.{k}": f"enc.{here}_block{k}"}
            prefixes |= {f"decoder.{j}.blocks.{k}": f"dec.{here}_block{k}"}
    bottom = f"{size >> (levels - 1)}x{size >> (levels - 1)}"
    prefixes |= {f"middle.{k}": f"dec.{bottom}_in{k}" for k in (0, 1)}
    for name in net.state_dict():
        prefix = next(p for p in prefixes if name == p or name.startswith(p + "."))
        rest = name.removeprefix(prefix)
        for ours, theirs in EDM_BLOCK.items():
            rest = rest.replace(ours, theirs)
        yield name, [prefixes[prefix] + rest]


def score_sde_names(net: NCSNpp) -> Iterator[tuple[str, list[str]]]:
    """Every name of our state dict with score_sde's; q, k and v are three matrices there."""
    number = 0
    if net.arguments["embedding"] == "fourier":
        yield "embed.freqs", ["0.W"]
        number = 1
    for prefix in _order(net):
        module = net.get_submodule(prefix)
        names = {"": ""} if not isinstance(module, Block) else SDE_BLOCK
        names = {"conv": "Conv2d_0"} if isinstance(module, ImageDown) else names
        for ours, theirs in names.items():
            for kind, _ in module.get_submodule(ours).named_parameters():
                yield _join(prefix, ours, kind), [_join(str(number), theirs, kind)]
        number += 1
        if isinstance(module, Block) and isinstance(module.attention, Attention):
            inside = f"{prefix}.attention"
            for kind, b in (("weight", "W"), ("bias", "b")):
                yield f"{inside}.norm.{kind}", [f"{number}.GroupNorm_0.{kind}"]
                yield f"{inside}.qkv.{kind}", [f"{number}.NIN_{k}.{b}" for k in range(3)]
                yield f"{inside}.proj.{kind}", [f"{number}.NIN_3.{b}"]
            number += 1


def score_sde_arguments(found: Mapping[str, Tensor], size: int) -> dict[str, Any]:
    """What the shapes of a score_sde network say of its arguments; `size` they do not say.

    The modules between the first and the last convolution spell a word: R a residual block, r one
    that resamples (its 1x1 convolution keeps the width), A attention, D the image's own path.
    """
    parts: dict[int, set[str]] = defaultdict(set)
    for name in found:
        number, _, rest = name.partition(".")
        parts[int(number)].add(rest)
    fourier = "W" in parts[0]
    first = 3 if fourier else 2
    inner = range(first + 1, max(parts) - 1)
    word = "".join(_letter(parts[k], found, k) for k in inner)
    segments = word.replace("D", "").split("r")
    levels = (len(segments) + 1) // 2
    known = all(re.fullmatch(r"R[RA]*", segment) for segment in segments)
    if not known or levels < 2 or len(segments) % 2 == 0:
        raise ValueError(f"modules {word}")
    starts = [0, *(m.end() for m in re.finditer("rD?", word))][:levels]
    channels, image = found[f"{first}.weight"].shape[:2]
    widths = [found[f"{inner[k]}.Conv_0.weight"].shape[0] for k in starts]
    return {
        "sample_size": size, "in_channels": image, "channels": channels,
        "out_channels": found[f"{max(parts)}.weight"].shape[0],
        "channel_mult": [width // channels for width in widths],
        "num_blocks": segments[0].count("R"),
        "attn_resolutions": [size >> i for i in range(levels) if segments[i][1:2] == "A"],
        "embedding": "fourier" if fourier else "positional", "log_label": fourier,
        "noise_mult": found[f"{first - 2}.weight"].shape[1] // channels,
        "encoder": "residual" if "D" in word else "standard",
        "resample_filter": [1, 3, 3, 1] if fourier else [1, 1],
    }  # fmt: skip


def _letter(parts: set[str], found: Mapping[str, Tensor], number: int) -> str:
    if "NIN_3.W" in parts:
        return "A"
    if "Conv2d_0.weight" in parts:
        return "D"
    if not {"GroupNorm_0.weight", "Conv_0.weight", "Dense_0.weight", "Conv_1.weight"} <= parts:
        return "?"
    skip = found.get(f"{number}.Conv_2.weight")
    return "r" if skip is not None and skip.shape[0] == skip.shape[1] else "R"


def _order(net: NCSNpp) -> Iterator[str]:
    """Our modules as score_sde counts them; a block's attention is counted after it."""
    yield from ("embed.layer0", "embed.layer1", "enter")
    for side in ("encoder", "middle", "decoder"):
        for name, module in net.get_submodule(side).named_modules(prefix=side):
            if isinstance(module, Block | ImageDown):
                yield name
    yield from ("out_norm", "out_conv")


def _assemble(
    arguments: dict[str, Any], found: dict[str, Tensor],
    names: Callable[[NCSNpp], Iterator[tuple[str, list[str]]]],
    layout: Callable[[Tensor, str], Tensor], where: str,
) -> dict[str, Tensor]:  # fmt: skip
    """Our state dict; every name of theirs is used once and every shape is as expected."""
    with torch.device("meta"):
        net = NCSNpp(**arguments)
    pairs = dict(names(net))
    wanted = {name for theirs in pairs.values() for name in theirs}
    if odd := [*sorted(wanted - found.keys()), *sorted(found.keys() - wanted)]:
        told = ", ".join(f"{n} {'missing' if n in wanted else 'unknown'}" for n in odd[:3])
        raise ConfigError(f"{where}: not the network its arguments say: {told} ({len(odd)} such)")
    state = {}
    for name, expected in net.state_dict().items():
        value = torch.cat([layout(found[theirs], theirs) for theirs in pairs[name]])
        if value.numel() != expected.numel() or value.shape[0] != expected.shape[0]:
            shapes = f"{tuple(expected.shape)}, found {tuple(value.shape)}"
            raise ConfigError(f"{where}: {pairs[name][0]} expected {shapes}")
        state[name] = value.reshape(expected.shape).contiguous()
    return state


def _edm_layout(value: Tensor, name: str) -> Tensor:
    """From (channel, q k v) to (q k v, channel)."""
    if ".qkv." not in name:
        return value
    return value.reshape(-1, 3, *value.shape[1:]).transpose(0, 1).flatten(0, 1)


def _sde_layout(value: Tensor, name: str) -> Tensor:
    """Its 1x1 convolutions in attention are (in, out) matrices."""
    return value.T if ".NIN_" in name and value.dim() == 2 else value


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)
