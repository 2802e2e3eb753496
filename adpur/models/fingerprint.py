"""What a network is, to the bit, wherever its weights came from."""

import hashlib
import json
from dataclasses import asdict, is_dataclass

import torch
from torch import nn


def fingerprint(module: nn.Module) -> str:
    """sha256 of a module's structure, its schedule, and every parameter and buffer.

    Buffers that no state dict holds count too (a classifier's mean and std), and so does what
    `repr` shows: two networks with equal fingerprints compute the same function.

    >>> fingerprint(nn.ReLU()) == fingerprint(nn.ReLU()) != fingerprint(nn.SiLU())
    True
    """
    digest = hashlib.sha256(repr(module).encode())
    schedule = getattr(module, "schedule", None)
    if is_dataclass(schedule) and not isinstance(schedule, type):
        digest.update(json.dumps(asdict(schedule)).encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def architecture(module: nn.Module) -> str:
    """Its class, and within brackets that of the one network it wraps.

    >>> architecture(nn.Sequential(nn.ReLU()))
    'Sequential(ReLU)'
    """
    inner = list(module.children())
    return type(module).__name__ + (f"({architecture(inner[0])})" if len(inner) == 1 else "")
