"""What a run may use of a machine, and what it used."""

import os
import resource
import sys

import lightning.pytorch as pl
import torch


def idle_cores(trainer: pl.Trainer) -> int:
    """Chunks worth running at a time: one on an accelerator."""
    if trainer.strategy.root_device.type != "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // (torch.get_num_threads() * trainer.world_size))


def peak_memory(device: torch.device) -> float:
    """Bytes: of tensors on an accelerator, else of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
