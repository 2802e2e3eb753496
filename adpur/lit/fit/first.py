"""Measurements on the first validation images, for any number of processes."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from adpur.errors import ConfigError
from adpur.lit.data.base import Batch
from adpur.lit.fit.training import Training


class FirstImages(pl.Callback, ABC):
    """Something measured while averaged weights are in place, on the first validation images.

    Which images these are does not depend on the number of processes; each measures its own.

    Args:
        images: how many.
        every: measure at each `every`-th validation of a fit; `adpur validate` always does.
    """

    def __init__(self, images: int, every: int) -> None:
        if images < 2 or every < 1:
            name = type(self).__name__
            raise ConfigError(f"{name}: expected images >= 2 and every >= 1, got {images}, {every}")
        self.images, self.every = images, every
        self._seen = self._validations = 0

    labelled: ClassVar[bool] = True
    """Whether it compares with labels."""

    @abstractmethod
    def measure(self, module: Training, batch: Batch, position: Tensor) -> None:
        """Take in some images; `position` `(B,)` counts from the first of all."""

    @abstractmethod
    def found(self) -> dict[str, Tensor]:
        """The values by name, over all processes; the next measurement starts anew."""

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count; every process needs an image of its own."""
        if self.images < trainer.world_size:
            raise ConfigError(
                f"{type(self).__name__} images={self.images} cannot be shared by "
                f"{trainer.world_size} processes"
            )
        if self.labelled and getattr(trainer.datamodule, "classes", 1) == 0:  # type: ignore[attr-defined]
            raise ConfigError(
                f"{type(self).__name__} needs labels, and the images have none; leave it out"
            )
        self._seen = 0
        self._validations += not trainer.sanity_checking

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure this process's part; positions are those of `ExactSampler`."""
        assert isinstance(pl_module, Training)
        if not self._due(trainer):
            return
        place = torch.arange(self._seen, self._seen + len(batch[2]))
        position = trainer.global_rank + trainer.world_size * place
        self._seen += len(place)
        mine = position < self.images
        if not mine.any():
            return
        with torch.inference_mode(False):  # attacks differentiate
            x, y, index = (part[mine.to(part.device)].clone() for part in batch)
            self.measure(pl_module, (x, y, index), position[mine].to(index.device))

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log what all processes found."""
        if self._due(trainer):
            for name, value in self.found().items():
                pl_module.log(name, value, prog_bar=True, sync_dist=True)  # equal on all of them

    def state_dict(self) -> dict[str, Any]:
        """How many validations there were."""
        return {"validations": self._validations}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._validations = state_dict["validations"]

    def _due(self, trainer: pl.Trainer) -> bool:
        fitting = trainer.state.fn == TrainerFn.FITTING
        return not trainer.sanity_checking and not (fitting and self._validations % self.every)
