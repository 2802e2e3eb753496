"""A small ADDT fit: six steps of a real U-Net, in milliseconds each."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import Dataset, Subset
from toy import trainer
from unet import UNET

from adpur import ADDT, CGPO, EMA, Digits, LastCheckpoint, Networks, pretrained
from adpur.addt.perturbation import Weight
from adpur.diffusion.adapters import DiffusersNet, EpsDenoiser
from adpur.diffusion.schedule import DiscreteVP
from adpur.lit.data.base import Batch, Split
from adpur.models.checkpoints.zoo import build_unet

PERTURBATION = CGPO(steps=2, weight=Weight(0.19, 0.0, 0.8))


class Few(Digits):
    """24 images to train on."""

    def split(self, name: Split) -> Dataset[Batch]:
        return Subset(super().split(name), range(24))


def addt(folder: Path, dropout: float = 0.0, **kwargs: Any) -> ADDT:
    """A network that has learned nothing yet, guided by the shipped classifier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        unet = build_unet(UNET | {"dropout": 0.1}, "unet")
    denoiser = EpsDenoiser(DiffusersNet(unet), DiscreteVP(), (1, 8, 8))
    classifier = pretrained("digits/classifier").classifier
    more = {"perturbation": PERTURBATION, "lr": 1e-3, "dropout": dropout, "warmup": 2} | kwargs
    return ADDT(str(folder / "weights"), Networks(classifier, denoiser), **more)


def fit(
    folder: Path, *callbacks: pl.Callback, batch_size: int = 8, dropout: float = 0.1,
    compile: str | None = None, **kwargs: Any,
) -> ADDT:  # fmt: skip
    """Two epochs with average, clipping and validation, on from the last checkpoint if any."""
    module = addt(folder, dropout, compile=compile)
    plain = {
        "max_epochs": 2, "enable_checkpointing": True, "limit_val_batches": 1,
        "num_sanity_val_steps": 0, "gradient_clip_val": 0.5, "log_every_n_steps": 1,
    }  # fmt: skip
    kept = [] if any(isinstance(c, LastCheckpoint) for c in callbacks) else [LastCheckpoint()]
    made = trainer(folder, [EMA(0.9), *callbacks, *kept], **plain | kwargs)
    last = folder / "checkpoints" / "last.ckpt"
    resume = str(last) if last.is_file() else None
    made.fit(module, Few(batch_size=batch_size), ckpt_path=resume, weights_only=True)
    return module


TWO = {"devices": 2, "strategy": "ddp_fork", "batch_size": 4}
"""Two processes with one's global batch."""


def apart(one: ADDT, two: ADDT) -> float:
    """The largest difference of two fits' weights."""
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)
