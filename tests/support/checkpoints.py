"""Checkpoints as EDM and score_sde write them, and their networks as plain formulas.

Names, shapes, layouts and arithmetic are written here a second time, from the descriptions of the
two formats and not from adpur's tables: what adpur converts is compared with this.
"""

import math
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shapes = dict[str, tuple[int, ...]]
SMALL = {
    "img_resolution": 8, "in_channels": 3, "out_channels": 3, "label_dim": 0, "augment_dim": 9,
    "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4],
}  # fmt: skip
NCSN = {
    "embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}  # fmt: skip


def dense(name: str, inner: int, outer: int, size: int = 0) -> Shapes:
    return {
        f"{name}.weight": (outer, inner, *[size] * (2 if size else 0)),
        f"{name}.bias": (outer,),
    }


def norm(name: str, channels: int) -> Shapes:
    return {f"{name}.weight": (channels,), f"{name}.bias": (channels,)}


# EDM


def edm_block(name: str, inner: int, outer: int, width: int, attend: bool, taps: int = 0) -> Shapes:
    shapes = norm(f"{name}.norm0", inner) | dense(f"{name}.conv0", inner, outer, 3)
    shapes |= dense(f"{name}.affine", width, outer) | norm(f"{name}.norm1", outer)
    shapes |= dense(f"{name}.conv1", outer, outer, 3)
    if inner != outer or taps:
        shapes |= dense(f"{name}.skip", inner, outer, 1)
    if taps:
        shapes |= {
            f"{name}.{part}.resample_filter": (1, 1, taps, taps) for part in ("conv0", "skip")
        }
    if attend:
        shapes |= norm(f"{name}.norm2", outer) | dense(f"{name}.qkv", outer, 3 * outer, 1)
        shapes |= dense(f"{name}.proj", outer, outer, 1)
    return shapes


def edm_shapes(kw: dict) -> Shapes:
    """Every parameter and buffer of EDM's SongUNet."""
    size, wide, mult = kw["img_resolution"], kw["model_channels"], kw["channel_mult"]
    noise, width, taps = (
        wide * kw.get("channel_mult_noise", 1),
        4 * wide,
        len(kw.get("resample_filter", [1, 1])),
    )
    fourier, residual = kw.get("embedding_type") == "fourier", kw.get("encoder_type") == "residual"
    shapes: Shapes = {"map_noise.freqs": (noise // 2,)} if fourier else {}
    shapes |= {"map_augment.weight": (noise, kw["augment_dim"])}
    shapes |= dense("map_layer0", noise, width) | dense("map_layer1", width, width)
    here, image, skips = wide, kw["in_channels"], [wide]
    for level, m in enumerate(mult):
        res = f"enc.{size >> level}x{size >> level}"
        attend = size >> level in kw["attn_resolutions"]
        if level == 0:
            shapes |= dense(f"{res}_conv", kw["in_channels"], wide, 3)
        else:
            shapes |= edm_block(f"{res}_down", here, here, width, False, taps)
            skips.append(here)
            if residual:
                shapes |= dense(f"{res}_aux_residual", image, here, 3)
                shapes |= {f"{res}_aux_residual.resample_filter": (1, 1, taps, taps)}
                image = here
        for k in range(kw["num_blocks"]):
            shapes |= edm_block(f"{res}_block{k}", here, wide * m, width, attend)
            here = wide * m
            skips.append(here)
    for level, m in reversed(list(enumerate(mult))):
        res = f"dec.{size >> level}x{size >> level}"
        if level == len(mult) - 1:
            shapes |= edm_block(f"{res}_in0", here, here, width, True)
            shapes |= edm_block(f"{res}_in1", here, here, width, False)
        else:
            shapes |= edm_block(f"{res}_up", here, here, width, False, taps)
        for k in range(kw["num_blocks"] + 1):
            attend = size >> level in kw["attn_resolutions"] and k == kw["num_blocks"]
            shapes |= edm_block(f"{res}_block{k}", here + skips.pop(), wide * m, width, attend)
            here = wide * m
    res = f"dec.{size}x{size}"
    return (
        shapes
        | norm(f"{res}_aux_norm", here)
        | dense(f"{res}_aux_conv", here, kw["out_channels"], 3)
    )


def drawn(shapes: Shapes, seed: int = 5) -> dict[str, Tensor]:
    """Weights of ordinary size, so that every branch of the network matters."""
    g = torch.Generator().manual_seed(seed)
    made = {
        n: torch.randn(s, generator=g) / math.sqrt(max(math.prod(s[1:]), 4))
        for n, s in shapes.items()
    }
    return {n: 1 + v if "orm" in n and n.endswith("weight") else v for n, v in made.items()}


def edm_network(w: dict[str, Tensor], kw: dict, x: Tensor, label: Tensor) -> Tensor:
    """EDM's forward pass, name by name."""
    size, mult, taps = kw["img_resolution"], kw["channel_mult"], kw.get("resample_filter", [1, 1])
    if "map_noise.freqs" in w:
        angles = label[:, None] * 2 * math.pi * w["map_noise.freqs"]
    else:
        half = kw["model_channels"] // 2
        angles = label[:, None] * (1 / 10000) ** (torch.arange(half, dtype=x.dtype) / (half - 1))
    emb = torch.cat([angles.sin(), angles.cos()], 1)
    for k in (0, 1):
        emb = F.silu(emb @ w[f"map_layer{k}.weight"].T + w[f"map_layer{k}.bias"])
    names = ("norm0", "conv0", "affine", "norm1", "conv1", "skip")

    def block(name: str, h: Tensor, way: str = "") -> Tensor:
        part = {k.removeprefix(name + "."): v for k, v in w.items() if k.startswith(name + ".")}
        h = residual(part, names, h, emb, way, taps)
        return edm_attention(part, h) if "qkv.weight" in part else h

    h = conv(w, f"enc.{size}x{size}_conv", x)
    skips, image = [h], x
    for level in range(len(mult)):
        res = f"enc.{size >> level}x{size >> level}"
        if level:
            h = block(f"{res}_down", h, "down")
            if f"{res}_aux_residual.weight" in w:
                h = image = (h + image_down(w, f"{res}_aux_residual", image, taps)) / math.sqrt(2)
            skips.append(h)
        for k in range(kw["num_blocks"]):
            h = block(f"{res}_block{k}", h)
            skips.append(h)
    for level in reversed(range(len(mult))):
        res = f"dec.{size >> level}x{size >> level}"
        if level == len(mult) - 1:
            h = block(f"{res}_in1", block(f"{res}_in0", h))
        else:
            h = block(f"{res}_up", h, "up")
        for k in range(kw["num_blocks"] + 1):
            h = block(f"{res}_block{k}", torch.cat([h, skips.pop()], 1))
    res = f"dec.{size}x{size}"
    return conv(w, f"{res}_aux_conv", F.silu(groups(w, f"{res}_aux_norm", h)))


def edm_attention(w: dict[str, Tensor], x: Tensor) -> Tensor:
    """Position by position; channel c of q, k, v is row 3 c, 3 c + 1, 3 c + 2 of qkv."""
    b, c = x.shape[:2]
    qkv = conv(w, "qkv", groups(w, "norm2", x), 0).reshape(b, 3 * c, -1)
    return attended(
        w["proj.weight"][:, :, 0, 0], w["proj.bias"], qkv[:, 0::3], qkv[:, 1::3], qkv[:, 2::3], x
    )


# score_sde


def sde_modules(kw: dict) -> Iterator[tuple[str, Shapes]]:
    """The kinds and shapes of `all_modules`, in its order."""
    size, wide, mult = kw["size"], kw["nf"], kw["ch_mult"]
    fourier, width = kw.get("fourier", False), 4 * wide
    if fourier:
        yield "features", {"W": (wide,)}
    yield "dense", {"weight": (width, wide * (2 if fourier else 1)), "bias": (width,)}
    yield "dense", {"weight": (width, width), "bias": (width,)}
    yield "conv", {"weight": (wide, 3, 3, 3), "bias": (wide,)}
    here, image, skips = wide, 3, [wide]
    for level, m in enumerate(mult):
        for _ in range(kw["blocks"]):
            yield "block", sde_block(here, wide * m, width)
            here = wide * m
            if size >> level in kw["attn"]:
                yield "attention", sde_attn(here)
            skips.append(here)
        if level < len(mult) - 1:
            yield "down", sde_block(here, here, width, True)
            if fourier:
                yield "image", {"Conv2d_0.weight": (here, image, 3, 3), "Conv2d_0.bias": (here,)}
                image = here
            skips.append(here)
    yield "block", sde_block(here, here, width)
    yield "attention", sde_attn(here)
    yield "block", sde_block(here, here, width)
    for level, m in reversed(list(enumerate(mult))):
        for k in range(kw["blocks"] + 1):
            yield (
                ("joined-last" if k == kw["blocks"] else "joined"),
                sde_block(here + skips.pop(), wide * m, width),
            )
            here = wide * m
        if size >> level in kw["attn"]:
            yield "attention", sde_attn(here)
        if level:
            yield "up", sde_block(here, here, width, True)
    yield "norm", {"weight": (here,), "bias": (here,)}
    yield "conv", {"weight": (3, here, 3, 3), "bias": (3,)}


def sde_block(inner: int, outer: int, width: int, resized: bool = False) -> Shapes:
    shapes = norm("GroupNorm_0", inner) | dense("Conv_0", inner, outer, 3)
    shapes |= (
        dense("Dense_0", width, outer)
        | norm("GroupNorm_1", outer)
        | dense("Conv_1", outer, outer, 3)
    )
    return shapes | (dense("Conv_2", inner, outer, 1) if inner != outer or resized else {})


def sde_attn(channels: int) -> Shapes:
    matrices = {f"NIN_{k}.{p}": (channels,) * n for k in range(4) for p, n in (("W", 2), ("b", 1))}
    return norm("GroupNorm_0", channels) | matrices


def sde_shapes(kw: dict) -> Shapes:
    modules = enumerate(shapes for _, shapes in sde_modules(kw))
    return {f"{n}.{name}": shape for n, shapes in modules for name, shape in shapes.items()}


def sde_network(w: dict[str, Tensor], kw: dict, x: Tensor, label: Tensor) -> Tensor:
    """score_sde's forward pass, module after module."""
    todo = list(enumerate(kind for kind, _ in sde_modules(kw)))
    names = ("GroupNorm_0", "Conv_0", "Dense_0", "GroupNorm_1", "Conv_1", "Conv_2")
    taps = [1, 3, 3, 1] if kw.get("fourier") else [1, 1]
    if kw.get("fourier"):
        todo.pop(0)
        angles = label.log()[:, None] * w["0.W"] * 2 * math.pi
    else:
        half = kw["nf"] // 2
        angles = label[:, None] * torch.exp(
            -math.log(10000) * torch.arange(half, dtype=x.dtype) / (half - 1)
        )
    emb = torch.cat([angles.sin(), angles.cos()], 1)
    for _ in range(2):
        n, _ = todo.pop(0)
        emb = F.silu(emb @ w[f"{n}.weight"].T + w[f"{n}.bias"])
    h = conv(w, f"{todo.pop(0)[0]}", x)
    skips, image = [h], x
    part = {
        n: {k.removeprefix(f"{n}."): v for k, v in w.items() if k.startswith(f"{n}.")}
        for n, _ in todo
    }
    middle = next(n for n, kind in todo if kind == "joined") - 3  # block, attention, block
    for n, kind in todo:
        if kind in ("down", "up"):
            h = residual(part[n], names, h, emb, kind, taps)
        elif kind == "image":
            h = image = (h + image_down(part[n], "Conv2d_0", image, taps)) / math.sqrt(2)
            skips.pop()
        elif kind == "attention":
            h = sde_attention(part[n], h)
            if n < middle:
                skips.pop()
        elif kind == "norm":
            h = F.silu(groups(w, f"{n}", h))
        elif kind == "conv":
            return conv(w, f"{n}", h)
        else:
            h = torch.cat([h, skips.pop()], 1) if kind.startswith("joined") else h
            h = residual(part[n], names, h, emb, "", taps)
        if n < middle:
            skips.append(h)
    raise AssertionError


def sde_attention(w: dict[str, Tensor], x: Tensor) -> Tensor:
    h = groups(w, "GroupNorm_0", x).flatten(2)
    q, k, v = (
        torch.einsum("bcn,cd->bdn", h, w[f"NIN_{i}.W"]) + w[f"NIN_{i}.b"][:, None] for i in range(3)
    )
    return attended(w["NIN_3.W"].T, w["NIN_3.b"], q, k, v, x)


# both


def conv(w: dict[str, Tensor], name: str, x: Tensor, pad: int = 1) -> Tensor:
    return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=pad)


def groups(w: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    g = x.reshape(x.shape[0], min(x.shape[1] // 4, 32), -1)
    g = (g - g.mean(2, keepdim=True)) / (g.var(2, keepdim=True, unbiased=False) + 1e-6).sqrt()
    return (
        g.reshape(x.shape) * w[f"{name}.weight"][:, None, None] + w[f"{name}.bias"][:, None, None]
    )


def residual(
    w: dict[str, Tensor], names: tuple[str, ...], x: Tensor, emb: Tensor, way: str, taps: list[int]
) -> Tensor:
    norm0, conv0, affine, norm1, conv1, skip = names
    h = conv(w, conv0, resampled(F.silu(groups(w, norm0, x)), way, taps))
    h = h + (emb @ w[f"{affine}.weight"].T + w[f"{affine}.bias"])[:, :, None, None]
    h = conv(w, conv1, F.silu(groups(w, norm1, h)))
    x = resampled(x, way, taps)
    return ((conv(w, skip, x, 0) if f"{skip}.weight" in w else x) + h) / math.sqrt(2)


def resampled(x: Tensor, way: str, taps: list[int]) -> Tensor:
    """Zeros between the pixels, or every other pixel dropped, around one plain filter."""
    if not way:
        return x
    row = torch.tensor(taps, dtype=x.dtype) / sum(taps)
    kernel, n = row[:, None] * row[None, :], len(taps)
    flat = x.reshape(-1, 1, *x.shape[2:])
    if way == "up":
        wide = flat.new_zeros(flat.shape[0], 1, 2 * x.shape[2], 2 * x.shape[3])
        wide[:, :, ::2, ::2] = 4 * flat
        out = F.conv2d(F.pad(wide, (n // 2, (n - 1) // 2) * 2), kernel[None, None])
    else:
        out = F.conv2d(F.pad(flat, ((n - 1) // 2,) * 4), kernel[None, None])[:, :, ::2, ::2]
    return out.reshape(*x.shape[:2], *out.shape[2:])


def image_down(w: dict[str, Tensor], name: str, x: Tensor, taps: list[int]) -> Tensor:
    """Filter first, then a convolution of stride 2: score_sde's order, the other one than adpur's."""
    row = torch.tensor(taps, dtype=x.dtype) / sum(taps)
    kernel = (row[:, None] * row[None, :]).expand(x.shape[1], 1, -1, -1)
    soft = F.conv2d(F.pad(x, ((len(taps) + 1) // 2,) * 4), kernel, groups=x.shape[1])
    return F.conv2d(soft, w[f"{name}.weight"], w[f"{name}.bias"], stride=2)


def attended(proj: Tensor, bias: Tensor, q: Tensor, k: Tensor, v: Tensor, x: Tensor) -> Tensor:
    """One query position at a time."""
    columns = []
    for i in range(q.shape[2]):
        scores = (q[:, :, i : i + 1] * k).sum(1) / math.sqrt(x.shape[1])
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
        columns.append((weights[:, None] * v).sum(2))
    h = torch.einsum("bcn,dc->bdn", torch.stack(columns, 2), proj) + bias[:, None]
    return (x + h.reshape(x.shape)) / math.sqrt(2)


# files


def write_edm(
    file: Path, w: dict[str, Tensor], kw: dict, outer: str = "EDMPrecond", inner: str = "SongUNet"
) -> None:
    """A pickle as EDM's training writes it; its packages exist only while it is written."""
    persistence = types.ModuleType("torch_utils.persistence")
    util = types.ModuleType("dnnlib.util")
    source = "import os; os.system('touch pwned')"

    def rebuild(meta):
        raise AssertionError

    rebuild.__module__, rebuild.__qualname__ = (
        "torch_utils.persistence",
        "_reconstruct_persistent_obj",
    )
    persistence._reconstruct_persistent_obj = rebuild
    easy = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    util.EasyDict = easy

    class Persistent(nn.Module):
        def __init__(self, kind: str, **attributes) -> None:
            super().__init__()
            self.__dict__.update(attributes, kind=kind)

        def __reduce__(self):
            meta = {"type": "class", "version": 6, "module_src": source, "class_name": self.kind}
            return rebuild, (easy(meta | {"state": self.__dict__}),), None

    net = Persistent(inner, _init_args=(), _init_kwargs=easy(kw))
    import numpy as np

    for name, value in w.items():
        here: nn.Module = net
        *path, leaf = name.split(".")
        for depth, step in enumerate(path):
            if step not in here._modules:
                box = (
                    nn.ModuleDict()
                    if step in ("enc", "dec")
                    else Persistent("Part", skip_scale=np.sqrt(0.5))
                )
                here.add_module(
                    step,
                    box
                    if depth < len(path) - 1 or step in ("enc", "dec")
                    else Persistent("Conv2d"),
                )
            here = here._modules[step]
        if leaf in ("freqs", "resample_filter"):
            here.register_buffer(leaf, value)
        else:
            here.register_parameter(leaf, nn.Parameter(value, requires_grad=False))
    top = Persistent(outer, sigma_data=0.5, sigma_max=float("inf"), label_dim=0, model=None)
    del top.__dict__["model"]
    top.add_module("model", net)
    fake = {"torch_utils": types.ModuleType("torch_utils"), "torch_utils.persistence": persistence,
            "dnnlib": types.ModuleType("dnnlib"), "dnnlib.util": util}  # fmt: skip
    sys.modules.update(fake)
    try:
        file.write_bytes(pickle.dumps({"ema": top, "dataset_kwargs": easy({"path": "x"})}))
    finally:
        for name in fake:
            del sys.modules[name]


def write_sde(file: Path, w: dict[str, Tensor], legacy: bool = False) -> None:
    """A checkpoint as score_sde saves it; only its EMA holds the weights `w`."""
    model = {"module.sigmas": torch.ones(4)}
    model |= {
        f"module.all_modules.{k}": v if k == "0.W" else torch.zeros_like(v) for k, v in w.items()
    }
    shadows = [v for k, v in w.items() if k != "0.W"]
    ema = {"decay": 0.9999, "num_updates": 7, "shadow_params": shadows}
    optimizer = {
        "state": {0: {"step": 7, "exp_avg": torch.zeros(2)}},
        "param_groups": [{"lr": 2e-4}],
    }
    content = {"optimizer": optimizer, "model": model, "ema": ema, "step": 7}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
