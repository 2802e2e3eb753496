"""`adpur fit --dry-run`: what a fit will cost, from a few measured steps and one validation."""

import statistics
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import SimpleProfiler

from adpur.defense.defense import ROWS
from adpur.keyed.noise import Noise
from adpur.lit.cores import peak_memory
from adpur.lit.data.base import ImageData
from adpur.lit.fit.diffusion import DenoiserTraining
from adpur.lit.fit.first import FirstImages
from adpur.lit.fit.training import Training
from adpur.purify.levels.level import calibrate

WARM = 2
"""Steps that are not counted: the first use of a shape is slower."""
STEPS = (5, 50)
"""Counted steps: at least and at most; fewer than the most once they have taken `ENOUGH`."""
ENOUGH = 10.0
"""Seconds."""


class Measured(Exception):
    """Ends a fit once its steps have been measured."""


@dataclass
class Plan:
    """How often a fit does what."""

    steps: int
    validations: int


class Stopwatch(pl.Callback):
    """Times the optimizer steps of a fit, data loading included, and stops it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.plan = Plan(0, 0)
        self._last, self._step = 0.0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Read the plan off the trainer, which knows the data by now."""
        steps = int(trainer.estimated_stepping_batches)
        self.plan = Plan(steps, _validations(trainer, steps))
        self._last = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """One more step, or the end."""
        if trainer.global_step == self._step:
            return  # accumulating
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize(trainer.strategy.root_device)
        self._step, now = trainer.global_step, time.perf_counter()
        self.seconds.append(now - self._last)
        counted = self.seconds[WARM:]
        enough = len(counted) >= STEPS[0] and sum(counted) > ENOUGH
        if enough or len(counted) >= STEPS[1] or self._step >= self.plan.steps:
            raise Measured
        self._last = time.perf_counter()

    @property
    def step(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds[WARM:] or self.seconds)


def estimate(trainer: pl.Trainer, module: Training, data: ImageData) -> Iterator[str]:
    """Lines: seconds of a step, of a validation, of the export, and of all; memory.

    The trainer must have a `SimpleProfiler` and nothing that writes to a run folder.
    """
    watch = Stopwatch()
    trainer.callbacks.append(watch)  # type: ignore[attr-defined]
    with suppress(Measured):
        trainer.fit(module, data)
    trainer.callbacks.remove(watch)  # type: ignore[attr-defined]
    plan = watch.plan
    yield _line("optimizer steps", plan.steps, watch.step)
    total = plan.steps * watch.step
    if plan.validations:
        once, scarce = _validation(trainer, module, data)
        yield _line("validations", plan.validations, once)
        total += plan.validations * once
        for name, every, seconds in scarce:
            yield _line(name, plan.validations // every, seconds)
            total += plan.validations // every * seconds
    export = _export(module, data)
    yield _line("export", 1, export)
    total += export
    yield f"in all: {total / 3600:.2f} hours on {trainer.world_size} process(es) like this one"
    yield f"memory: {peak_memory(trainer.strategy.root_device) / 2**30:.2f} GiB, the most so far"
    yield (
        f"An estimate: {len(watch.seconds)} steps and one validation were measured; other work on "
        "this machine slows a fit as it slowed these. Nothing was written."
    )


def _validations(trainer: pl.Trainer, steps: int) -> int:
    """How often a fit of `steps` validates."""
    if not trainer.enable_validation:
        return 0
    batches = steps * trainer.accumulate_grad_batches
    every = int(trainer.val_check_batch)  # type: ignore[arg-type]
    if trainer.check_val_every_n_epoch is None:
        return batches // every
    epochs, rest = divmod(batches, int(trainer.num_training_batches))
    within = int(trainer.num_training_batches) // every
    return epochs // trainer.check_val_every_n_epoch * within + (
        rest // every if (epochs + 1) % trainer.check_val_every_n_epoch == 0 else 0
    )


def _validation(
    trainer: pl.Trainer, module: Training, data: ImageData
) -> tuple[float, list[tuple[str, int, float]]]:
    """Seconds of one validation without what is measured on the first images, and those."""
    profiler = trainer.profiler  # type: ignore[attr-defined]
    assert isinstance(profiler, SimpleProfiler)
    profiler.recorded_durations.clear()
    start = time.perf_counter()
    trainer.validate(module, data, verbose=False)
    total = time.perf_counter() - start
    scarce = []
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, FirstImages):
            name = type(callback).__name__
            seconds = sum(
                sum(durations)
                for action, durations in profiler.recorded_durations.items()
                if action.startswith(f"[Callback]{name}") and "validation" in action
            )
            scarce.append((name, callback.every, seconds))
    return total - sum(seconds for *_, seconds in scarce), scarce


def _export(module: Training, data: ImageData) -> float:
    """Seconds of the score norms that are measured of the written network."""
    if not isinstance(module, DenoiserTraining) or not module.score_norms:
        return 0.0
    images = len(data.split("validation"))  # type: ignore[arg-type]
    x, _, index = data.leading("validation", ROWS)
    scorer, total = module.denoiser.eval(), 0.0
    x = x.to(next(scorer.parameters()))
    for score_norm in module.score_norms:
        start = time.perf_counter()
        calibrate(x, Noise(index, module.seed), scorer, score_norm, ROWS)
        total += (time.perf_counter() - start) * images / len(x)
    return total


def _line(name: str, times: int, seconds: float) -> str:
    return f"{name:20} {times:8,} x {seconds:9.3f} s = {times * seconds / 3600:7.3f} h"
