"""The resolved config beside the results."""

import uuid
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from jsonargparse import ArgumentError, Namespace
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_only

from adpur.cli.values import load_yaml
from adpur.errors import ConfigError
from adpur.judging.records import differences

EXECUTION = {
    "accelerator", "devices", "num_nodes", "strategy", "logger", "default_root_dir", "max_time",
    "enable_progress_bar", "enable_model_summary", "enable_checkpointing", "log_every_n_steps",
    "profiler",
}  # fmt: skip
"""Trainer settings that may change between the sessions of one fit."""
SESSION = {"config", "run", "fresh", "threads", "vary", "only", "shard", "dry_run", "mixed"}
"""Words of the command line that say where and how, or are in the config already."""


class KeepConfig(SaveConfigCallback):
    """The resolved config beside the results, once the folder is known to be this run's."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Nothing yet."""

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The evaluation has claimed the folder."""
        self._write(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A fit continues only what the same settings began, save for how it is run."""
        file = Path(trainer.default_root_dir) / self.config_filename
        if trainer.ckpt_path and file.is_file():
            before = self._completed(load_yaml(file.read_text()))
            if told := list(differences(_settings(before), _settings(load_yaml(self._text())))):
                raise ConfigError(
                    f"{file.parent} holds another fit: {'; '.join(told[:4])}. "
                    "Name another folder with --run, or start anew with --fresh"
                )
        trainer.strategy.barrier()
        self._write(trainer)

    @rank_zero_only
    def _write(self, trainer: pl.Trainer) -> None:
        folder = Path(trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{self.config_filename}.{uuid.uuid4().hex}"  # shards write at once
        part.write_text(self._text())
        part.replace(folder / self.config_filename)

    def _text(self) -> str:
        return self._dumped(self.config)

    def _dumped(self, config: Namespace) -> str:
        text: str = self.parser.dump(config, skip_none=False, format="yaml")
        return text

    def _completed(self, before: dict[str, Any]) -> dict[str, Any]:
        """An older config with the settings that it lacks, because adpur or Lightning got them
        since, at the parser's defaults; as it is where it has one that is no longer known.
        """
        try:
            return load_yaml(self._dumped(self.parser.parse_object(before)))
        except ArgumentError:
            return before


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """What a fit's result depends on: everything but where and how it runs."""
    kept = {k: v for k, v in config.items() if k not in SESSION}
    trainer = config.get("trainer", {})
    kept["trainer"] = {k: v for k, v in trainer.items() if k not in EXECUTION}
    return kept
