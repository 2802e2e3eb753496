"""The state a fit goes on from."""

import copy
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim import Optimizer

from adpur.lit.signals import Signals


class LastCheckpoint(Checkpoint):
    """`last.ckpt`: always a state between two optimizer steps, so that a fit resumes exactly.

    Written every few minutes, before a validation, after an epoch, and when the fit ends early:
    by SIGTERM, by SLURM's warning (the job is then queued again), or in a single process by an
    exception. What a partly accumulated batch has done is left out, and is done again.

    Args:
        folder: for `last.ckpt`; `checkpoints` in the trainer's by default.
        minutes: between two states.
    """

    def __init__(self, folder: str | None = None, minutes: float = 10.0) -> None:
        self.folder, self.minutes = folder, minutes
        self._signals = Signals()
        self._before_step = False
        self._place: dict[str, Any] = {}
        self._saved = 0.0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before Lightning, which leaves a handler of SLURM's signal alone."""
        if stage == "fit":
            self._signals.listen(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After Lightning, which does not leave SIGTERM's alone."""
        self._signals.listen(trainer)
        self._saved = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """From here to the optimizer step nothing changes but gradients."""
        self._before_step = True

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Weights, their average and the schedule are of different steps for a while."""
        self._before_step = False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """After the average: checkpoints come last among callbacks."""
        if self._before_step:
            return  # accumulating
        self._place = _place(trainer)
        if trainer.strategy.reduce_boolean_decision(self._wanted(trainer), all=False):
            self._save(trainer)
            self._heed(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """A single process need not wait for the end of a long validation."""
        if trainer.world_size == 1 and not trainer.sanity_checking:
            self._heed(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The validation, if there was one, is not done again."""
        self._place = _place(trainer)
        self._save(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Whoever saves after a batch has begun: as of the last optimizer step."""
        if self._before_step and self._place:
            place = copy.deepcopy(self._place)
            checkpoint["loops"]["fit_loop"] = place.pop("fit_loop")
            checkpoint.update(place)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save, unless the weights may be of two steps, or others are elsewhere."""
        if self._before_step and self._place and trainer.world_size == 1:
            self._save(trainer)

    def _wanted(self, trainer: pl.Trainer) -> bool:
        loop = trainer.fit_loop
        assert loop._data_fetcher is not None
        late = time.monotonic() - self._saved > 60 * self.minutes
        heard = self._signals.heard is not None
        return heard or late or loop.epoch_loop._should_check_val_fx(loop._data_fetcher)

    def _save(self, trainer: pl.Trainer) -> None:
        folder = self.folder or f"{trainer.default_root_dir}/checkpoints"
        trainer.save_checkpoint(f"{folder}/last.ckpt")
        self._saved = time.monotonic()

    def _heed(self, trainer: pl.Trainer) -> None:
        if self._signals.stop(trainer):
            raise SIGTERMException


def _place(trainer: pl.Trainer) -> dict[str, Any]:
    """Where in its loops and in the data a fit is."""
    data = trainer.datamodule
    return {"fit_loop": trainer.fit_loop.state_dict(), type(data).__qualname__: data.state_dict()}
