"""Fits of three batches, on shipped networks."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from toy import trainer

from adpur import (
    ADDT,
    Digits,
    Networks,
    addt_paper,
    pretrained,
)


def addt(folder: Path, nets: Networks | None = None, **kwargs: Any) -> ADDT:
    nets = nets or pretrained("digits/classifier", "digits/diffusion")
    search = addt_paper(0.19, 0.8, steps=2)
    return ADDT(str(folder / "weights"), nets, search, **{"lr": 1e-3, "dropout": 0.2} | kwargs)


def fit(
    folder: Path,
    module: pl.LightningModule,
    callbacks: list[Any],
    ckpt: Path | None = None,
    **kwargs: Any,
) -> pl.Trainer:
    """Three batches of training and one of validation after two, unless it is told otherwise."""
    plain = {"max_steps": 3, "val_check_interval": 2, "limit_val_batches": 1}
    quiet = {"num_sanity_val_steps": 0, "log_every_n_steps": 1, "enable_checkpointing": True}
    made = trainer(folder, callbacks, **plain | quiet | kwargs)
    made.fit(module, Digits(batch_size=32), ckpt_path=ckpt, weights_only=True)
    return made


def kept(folder: Path, **kwargs: Any) -> ModelCheckpoint:
    return ModelCheckpoint(folder, save_last=True, **{"every_n_train_steps": 1} | kwargs)
