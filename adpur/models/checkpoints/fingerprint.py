"""What a network is, to the bit, wherever its weights came from."""

import hashlib
import inspect
import json
from dataclasses import asdict, is_dataclass
from pathlib import Path

import torch
from torch import nn

RELEASED = {"adpur", "torch", "torchvision", "diffusers", "timm", "builtins", "abc", "typing"}
"""Packages whose code has a version."""


def fingerprint(module: nn.Module) -> str:
    """sha256 of a module's structure, its schedule, and every parameter and buffer.

    Buffers that no state dict holds count too (a classifier's mean and std), what `repr` shows, and
    the source files of classes that come from neither adpur nor a library it knows. What a class
    reads from elsewhere while it runs is not seen.

    >>> fingerprint(nn.ReLU()) == fingerprint(nn.ReLU()) != fingerprint(nn.SiLU())
    True
    """
    digest = hashlib.sha256(repr(module).encode())
    for file in sorted({f for part in module.modules() for f in _sources(type(part))}):
        digest.update(file.read_bytes())
    schedule = getattr(module, "schedule", None)
    if is_dataclass(schedule) and not isinstance(schedule, type):
        digest.update(json.dumps(asdict(schedule)).encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _sources(kind: type) -> list[Path]:
    """The source files of a class and its bases that are nobody's release."""
    own = [k for k in kind.__mro__ if k.__module__.partition(".")[0] not in RELEASED]
    return [Path(file) for k in own if (file := _file(k))]


def _file(kind: type) -> str | None:
    try:
        return inspect.getsourcefile(kind)
    except (TypeError, OSError):  # made in a shell
        return None


def architecture(module: nn.Module) -> str:
    """Its class, and within brackets that of the one network it wraps.

    >>> architecture(nn.Sequential(nn.ReLU()))
    'Sequential(ReLU)'
    """
    inner = list(module.children())
    return type(module).__name__ + (f"({architecture(inner[0])})" if len(inner) == 1 else "")
