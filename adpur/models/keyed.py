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

from adpur.keyed.noise import Noise
from adpur.models.logits import asked


class Keyed(nn.Module, ABC):
    """A classifier whose randomness comes from the keys of its rows."""

    @abstractmethod
    def forward(self, x: Tensor, noise: Noise) -> Tensor:
        """Logits `(B, classes)` of images `(B, C, H, W)` in [0, 1], one key a row."""


class Seeded(Keyed):
    """Any module or function that may draw from the global generators of torch, numpy and Python.

    It is called once for each draw among its rows, the generators seeded with the keys of that
    call and given back as they were, so the same keys give the same answer, and two draws never
    share one, even where the net draws once a call. Images of one call do share it: unlike adpur's
    own noise, a draw depends on which images are asked together, and their answers are correlated
    where the net draws once a call; `rows: 1` is the cure. Calls are made one after another.

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
        parts = _draws(noise)
        answers = [self._once(x, noise, rows) for rows in parts]
        back = torch.cat(parts).argsort()
        return torch.cat(answers)[back]

    def _once(self, x: Tensor, noise: Noise, rows: Tensor) -> Tensor:
        """Answers to one draw, from a call of as many rows as any: the last bits depend on that."""
        filled = torch.cat((rows, rows[-1:].expand(len(x) - len(rows))))
        with self._lock, seeded(_seed(noise[rows]), x.device):
            logits = asked(self.net, x[filled])
        return logits[: len(rows)]


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


def _draws(noise: Noise) -> list[Tensor]:
    """The rows of each draw among the keys, on their device."""
    count = len(noise.index)
    parts = [torch.as_tensor(v).cpu().expand(count) for v in (noise.draw, noise.vote)]
    _, group = torch.stack(parts).unique(dim=1, return_inverse=True)  # type: ignore[no-untyped-call]
    rows = [(group == k).nonzero().flatten() for k in range(int(group.max()) + 1)]
    return [part.to(noise.index.device) for part in rows]


def _seed(noise: Noise) -> int:
    """A number for the keys of a call, all of them."""
    places = [
        torch.as_tensor(v).cpu().expand(len(noise.index))
        for v in (noise.index, noise.draw, noise.vote)
    ]
    role = f"{noise.seed} {noise.source} {noise.restart} {noise.iteration}"
    told = hashlib.sha256(role.encode() + torch.stack(places).numpy().tobytes()).digest()
    return int.from_bytes(told[:7], "big")
