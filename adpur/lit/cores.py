"""Threads that a run may use."""

import os

import lightning.pytorch as pl
import torch


def idle_cores(trainer: pl.Trainer) -> int:
    """Chunks worth running at a time: one on an accelerator."""
    if trainer.strategy.root_device.type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // (torch.get_num_threads() * trainer.world_size))
