"""What a stage gets where its config is silent."""

import logging
import os
import warnings
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger, Logger

from adpur.lit.logging.loggers import AutoWandbLogger, RowRuns


def default_loggers(stage: str, folder: Path) -> list[Logger]:
    """A local CSV, and W&B: one run for a fit, one per row for a test."""
    csv = CSVLogger(str(folder), name="logs")  # a version a session: none overwrites another
    if stage == "fit":
        return [csv, AutoWandbLogger(save_dir=str(folder), name=folder.name)]
    return [csv, RowRuns(group=folder.name, save_dir=str(folder))] if stage == "test" else [csv]


def quiet() -> None:
    """Silence advice that is not for the user of a run."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    os.environ.setdefault("WANDB_SILENT", "true")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
