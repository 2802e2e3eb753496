"""The state a fit goes on from."""

import copy
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.optim import Optimizer

from adpur.lit.run.signals import Signals


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
        self._step, self._time = 0, 0.0
        self._place: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Before Lightning, which leaves a handler of SLURM's signal alone."""
        if stage == "fit":
            self._signals.listen(trainer)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After Lightning, which does not leave SIGTERM's alone."""
        self._signals.listen(trainer)
        self._step, self._time = trainer.global_step, time.monotonic()

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Weights, their average and the schedule are of different steps for a while."""
        self._place = {}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """After a step and the average, as checkpoints come last among callbacks."""
        if trainer.global_step == self._step:
            return  # accumulating
        self._step, self._place = trainer.global_step, _place(trainer)
        validates = _validates(trainer)
        if validates:
            _before_validation(self._place["fit_loop"])
        late = time.monotonic() - self._time > 60 * self.minutes
        wanted = validates or late or self._signals.heard is not None
        if trainer.strategy.reduce_boolean_decision(wanted, all=False):
            self._save(trainer)
            self._heed(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        """A single process need not wait for the end of a long validation."""
        if trainer.world_size == 1:
            self._heed(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After a validation, which is not done again."""
        self._place = _place(trainer)
        self._save(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Whoever saves, and whatever has begun: as of the last optimizer step."""
        if self._place:
            place = copy.deepcopy(self._place)
            checkpoint["loops"]["fit_loop"] = place.pop("fit_loop")
            checkpoint.update(place)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save, unless weights are of two steps or swapped, or other processes are elsewhere."""
        if self._place and not trainer.validating and trainer.world_size == 1:
            self._save(trainer)

    def _save(self, trainer: pl.Trainer) -> None:
        folder = self.folder or f"{trainer.default_root_dir}/checkpoints"
        trainer.save_checkpoint(f"{folder}/last.ckpt")
        self._time = time.monotonic()

    def _heed(self, trainer: pl.Trainer) -> None:
        if self._signals.stop(trainer):
            raise SIGTERMException


def _place(trainer: pl.Trainer) -> dict[str, Any]:
    """Where in its loops and in the data a fit is."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    return {"fit_loop": trainer.fit_loop.state_dict(), type(data).__qualname__: data.state_dict()}


def _validates(trainer: pl.Trainer) -> bool:
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def _before_validation(loops: dict[str, Any]) -> None:
    """Lightning's word for this: the batch is completed, the first of the validation begun.

    Without it a resumed fit would leave the validation out.
    """
    for counts in (loops["epoch_loop.batch_progress"][k] for k in ("total", "current")):
        counts["completed"] = counts["processed"]
    begun = loops["epoch_loop.val_loop.batch_progress"]["total"]
    begun |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}
