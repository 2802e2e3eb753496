"""What a person sees while a run works."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import TQDMProgressBar

from adpur.lit.test.evaluation import Evaluation

RESUMED = 0.5
"""Seconds: a faster batch was read from the records, and tells nothing of the others."""


class Progress(TQDMProgressBar):
    """A bar per stage; in a test, the column and attack step at hand, and the time to expect.

    Where the output is no terminal it prints a line now and then instead of drawing.
    """

    def __init__(self, refresh_rate: int = 1, every: float = 10.0) -> None:
        super().__init__(refresh_rate)
        self.every = every
        self._batch_start = self._last_line = 0.0
        self._told = False
        self._text = ""

    @property
    def is_disabled(self) -> bool:
        """No bar on other processes, nor where nobody would see it."""
        return super().is_disabled or not sys.stdout.isatty()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        """The step and its metrics."""
        super().on_train_batch_end(trainer, *args, **kwargs)
        numbers = {k: v for k, v in trainer.progress_bar_metrics.items() if isinstance(v, float)}
        told = "  ".join(f"{k} {v:.4g}" for k, v in numbers.items())
        self._line(f"step {trainer.global_step}/{trainer.estimated_stepping_batches:.0f}  {told}")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let the evaluation say where it is."""
        super().on_test_start(trainer, pl_module)
        self._batch_start = time.perf_counter()
        if isinstance(pl_module, Evaluation):
            pl_module.tell = self._show

    def on_test_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """After the first batch that took any work, tell how long the rest will take."""
        super().on_test_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        now, total = time.perf_counter(), int(trainer.num_test_batches[0])
        spent, self._batch_start = now - self._batch_start, now
        self._text = f"batch {batch_idx + 1}/{total}"
        if batch_idx and not self._told and spent > RESUMED:
            self._told = True
            expected = (total - batch_idx) * spent
            self._say(f"one batch took {spent:.0f} s; expect about {expected:.0f} s more")

    def _show(self, text: str) -> None:
        self.test_progress_bar.set_postfix_str(text, refresh=True)
        self._line(f"{self._text}  {text}")

    def _line(self, text: str) -> None:
        now = time.perf_counter()
        if not sys.stdout.isatty() and now - self._last_line > self.every:
            self._last_line = now
            self._say(text)

    def _say(self, text: str) -> None:
        if not super().is_disabled:
            print(text, flush=True)
