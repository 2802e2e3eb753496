"""Averaged weights."""

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.precision import DoublePrecision
from torch import Tensor

from adpur.errors import ConfigError


class EMA(WeightAveraging):
    """An exponential moving average of the weights that validates and is exported.

    Update k = 1, 2, ... keeps min(decay, 1 - k^-power) of the average, so the first copies the
    weights; power 3/4 is ADDT's released form (at 20,000 steps it keeps .9994: a decay of .9999
    is not reached). Networks that a module merely borrows (`Lent`) are not averaged.

    Args:
        decay: the largest share that is kept.
        power: of the warm-up; None for none.
    """

    def __init__(self, decay: float = 0.9999, power: float | None = 0.75) -> None:
        if not 0 <= decay < 1 or (power is not None and power <= 0):
            raise ConfigError(f"EMA: expected 0 <= decay < 1 and power > 0, got {decay}, {power}")
        self.decay, self.power = decay, power
        super().__init__(multi_avg_fn=self._average)

    def kept(self, updates: int) -> float:
        """The share that update number `updates` + 1 keeps.

        >>> round(EMA().kept(19_600), 5)
        0.9994
        """
        if self.power is None:
            return self.decay
        return min(self.decay, 1 - (1 + updates) ** -self.power)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Copy the module; Lightning makes it fp64 only later, after a checkpoint is restored."""
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None and isinstance(
            trainer.precision_plugin, DoublePrecision
        ):
            self._average_model.double()

    @torch.no_grad()
    def _average(self, averaged: Any, current: Any, updates: Tensor | int) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1 - self.kept(int(updates)))
        else:  # batch norm's count of batches
            torch._foreach_copy_(averaged, current)
