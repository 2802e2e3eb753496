"""Classifiers that draw: foreign randomness brought under keys."""

import hashlib
import random
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from adpur.noise import Noise


class Keyed(nn.Module, ABC):
    """A classifier whose randomness comes from the keys of its rows."""

    @abstractmethod
    def forward(self, x: Tensor, noise: Noise) -> Tensor:
        """Logits `(B, classes)` of images `(B, C, H, W)` in [0, 1], one key a row."""


class Seeded(Keyed):
    """Any module or function that may draw from the global generators of torch, numpy and Python.

    They are seeded with the keys of a call's rows and given back as they were, so the same keys
    give the same answer. Rows of one call share a generator: unlike adpur's own noise, a draw
    depends on which rows share the call, and calls are made one after another.

    Args:
        net: from images in [0, 1] to logits.
        shape: (C, H, W) it expects, if known.
    """

    def __init__(self, net: nn.Module, shape: tuple[int, int, int] | None = None) -> None:
        super().__init__()
        self.net = net
        self.shape = shape
        self._lock = threading.Lock()

    def forward(self, x: Tensor, noise: Noise) -> Tensor:
        """Logits under the keys."""
        with self._lock, seeded(_seed(noise), x.device):
            logits: Tensor = self.net(x)
            return logits


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Global generators seeded inside, and outside as they were."""
    state, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.random.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
            random.setstate(python)


def _seed(noise: Noise) -> int:
    """A number for the keys of a call, all of them."""
    row = torch.zeros(len(noise.index), dtype=torch.int64)
    places = (noise.index, noise.draw, noise.vote, noise.member)
    columns = torch.stack([torch.as_tensor(p).cpu() + row for p in places])
    role = f"{noise.seed} {noise.source} {noise.restart} {noise.iteration} {sorted(noise.pooled)}"
    told = hashlib.sha256(role.encode() + columns.numpy().tobytes()).digest()
    return int.from_bytes(told[:7], "big")
