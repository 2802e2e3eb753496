"""What a fit costs, while it runs."""

from time import monotonic
from typing import Any

import lightning.pytorch as pl
import torch
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer

from adpur.lit.cores import peak_memory
from adpur.lit.data.base import Batch


class Cost(pl.Callback):
    """Throughput, device-hours, memory and the gradient's norm, at the steps that are logged.

    Part of every fit. Logs

    - `cost/images_per_second`, all processes together, validation not counted;
    - `cost/device_hours`, processes times time, validation included, over all sessions of a
      resumed fit: what was done after a session's last checkpoint is lost, and not counted;
    - `cost/peak_gib`, of the first process: allocated on CUDA, resident on a CPU;
    - `cost/grad_norm`, L2 over all parameters, before clipping.

    Reading the norm is the one wait for the device, and makes the times true.
    """

    def __init__(self) -> None:
        self._spent = 0.0
        self._session: tuple[float, int] | None = None
        self._restart()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The session begins."""
        self._session = (monotonic(), trainer.world_size)
        self._restart()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Batch, batch_idx: int
    ) -> None:
        """Count images."""
        self._images += len(batch[0])

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Measure, where this step is one to be logged."""
        if (trainer.global_step + 1) % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        grads = [p.grad for p in pl_module.parameters() if p.grad is not None]
        norm = float(get_total_norm(grads))
        rate = trainer.world_size * self._images / (monotonic() - self._start)
        peak = peak_memory(trainer.strategy.root_device) / 2**30
        found = {"images_per_second": rate, "device_hours": self.device_hours}
        for name, value in (found | {"peak_gib": peak, "grad_norm": norm}).items():
            pl_module.log(f"cost/{name}", torch.tensor(value, dtype=torch.float64))
        self._restart()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validation is no throughput."""
        self._restart()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The session ends."""
        self._spent, self._session = self.device_hours, None

    @property
    def device_hours(self) -> float:
        """Up to now."""
        if self._session is None:
            return self._spent
        start, processes = self._session
        return self._spent + processes * (monotonic() - start) / 3600

    def state_dict(self) -> dict[str, Any]:
        """Device-hours."""
        return {"device_hours": self.device_hours}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._spent = state_dict["device_hours"]

    def _restart(self) -> None:
        self._images, self._start = 0, monotonic()
