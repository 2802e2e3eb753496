"""`adpur fit | validate | test`: one config, one run folder, one Lightning stage."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import lightning.pytorch as pl
import torch
import yaml
from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ArgumentError,
    get_loader,
    set_loader,
)
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from adpur.cli import resolve_config
from adpur.errors import ConfigError
from adpur.explain import explain, ours
from adpur.lit.callbacks.progress import Progress
from adpur.lit.data.base import ImageData
from adpur.lit.evaluation import Evaluation
from adpur.lit.loggers import AutoWandbLogger, RowRuns
from adpur.lit.trainer import Trainer
from adpur.lit.training import Training
from adpur.records import differences
from adpur.report.table import show_run
from adpur.sweep import Vary, choose, expand
from adpur.threat.knowledge import Knowledge

EXECUTION = {
    "accelerator", "devices", "num_nodes", "strategy", "logger", "default_root_dir", "max_time",
    "enable_progress_bar", "enable_model_summary", "enable_checkpointing", "log_every_n_steps",
    "profiler",
}  # fmt: skip
"""Trainer settings that may change between the sessions of one fit."""
FRACTION = re.compile(r"-?\d+(\.\d+)?/\d+")


def run(stage: str, argv: Sequence[str]) -> int:
    """Parse, resume if there is something to resume, run the stage, print what came out."""
    _quiet()
    cli = parse(stage, argv)
    try:
        work(cli, stage)
    except SIGTERMException:
        print("adpur: terminated; the same command continues", file=sys.stderr)
        return 143
    except SystemExit:  # Lightning's answer to Ctrl-C
        if cli.trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    return 0


def parse(stage: str, argv: Sequence[str]) -> "CLI":
    """The trainer, module and data of a command line, built but not run."""
    words = list(argv)
    if not {"-c", "--config", "-h", "--help"} & {w.split("=")[0] for w in words}:
        raise ConfigError(
            f"adpur {stage} needs a config: adpur {stage} -c NAME (adpur configs lists all)"
        )
    set_loader("adpur", load_yaml, exceptions=(yaml.YAMLError,))
    jsonargparse.set_parsing_settings(
        import_path_denylist=[],  # turns its built-in denylist on
        subclasses_enabled=[Knowledge],  # a plain dataclass would take no class_path of a preset
    )
    try:
        return CLI(stage, words)
    except ArgumentError as error:
        raise ConfigError(explain(error)) from None
    except Exception as error:  # jsonargparse wraps what constructors raise
        raise ours(error) or error from None


def parse_model(config: str) -> Evaluation:
    """The evaluation of a test config, without its trainer's work."""
    _quiet()
    model = parse("test", ["-c", config, "--trainer.logger=false"]).model
    if not isinstance(model, Evaluation):
        raise ConfigError(f"{config} is not a test config: its model is {type(model).__name__}")
    return model


class CLI(LightningCLI):
    """LightningCLI for one stage; config names, run folders, and errors as one line."""

    def __init__(self, stage: str, argv: list[str]) -> None:
        self.stage = stage
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            save_config_callback=KeepConfig,
            trainer_class=Trainer,
            seed_everything_default=0,
            parser_kwargs={
                "prog": f"adpur {stage}",
                "usage": f"adpur {stage} -c NAME|FILE ... [--key=value ...]",
                "exit_on_error": False,
                "allow_abbrev": False,
                "parser_mode": "adpur",
            },
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=argv,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def init_parser(self, **kwargs: Any) -> Any:
        """A parser whose `--config` knows shipped names."""
        kwargs.setdefault("dump_header", ["adpur"])
        parser = self.parser_class(**kwargs)
        parser.add_argument("-c", "--config", action=_ConfigFile, help="YAML file or shipped name")
        return parser

    def add_arguments_to_parser(self, parser: Any) -> None:
        """Where results go."""
        parser.add_argument("--run", type=str | None, default=None, help="run folder")
        parser.add_argument("--threads", type=int | None, default=None, help="inside one operation")
        parser.add_argument("--vary", type=Vary | None, default=None, help="row: setting: values")
        parser.add_argument("--only", type=str | None, default=None, help="rows to run: a,b")
        parser.add_argument("--fresh", action="store_true", help="start anew in an empty folder")

    def parse_arguments(self, parser: Any, args: Any) -> None:
        """Without Lightning's warning that adpur's own dispatch provokes."""
        self.config = parser.parse_args(args)

    def before_instantiate_classes(self) -> None:
        """Threads first: everything after may compute. Then the rows of a sweep."""
        threads = self.config["threads"]
        if threads is not None:
            if threads < 1:
                raise ConfigError(f"threads must be a positive integer, got {threads}")
            torch.set_num_threads(threads)
        only, vary = self.config["only"], self.config["vary"]
        if only or vary:
            if self.stage != "test":
                told = "only" if only else "vary"
                raise ConfigError(f"{told} belongs to adpur test, not to adpur {self.stage}")
            self.config["run"] = str(self.folder)
            if only:
                choose(self.config, only.split(","))
            expand(self.config, vary or {})
            self.config["only"] = self.config["vary"] = None
            self.config = self.parser.parse_object(self.config)

    @property
    def folder(self) -> Path:
        """runs/<name of the first config and what was chosen of it>, or what `--run` says."""
        name = Path(str(self.config["config"][0])).stem
        chosen = [self.config["only"], *(f"vary-{row}" for row in self.config["vary"] or ())]
        return Path(self.config["run"] or Path("runs") / "-".join([name, *filter(None, chosen)]))

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Results below the run folder, loggers and a bar unless the config has its own."""
        config = self._get(self.config_init, "trainer")
        callbacks = config["callbacks"] = list(config["callbacks"] or [])
        if config["enable_progress_bar"] is not False and not _any(callbacks, ProgressBar):
            callbacks.append(Progress())
        if self.stage == "fit" and not _any(callbacks, ModelCheckpoint):
            callbacks.append(checkpoints(self.folder))
        if config["logger"] is None:
            kwargs["logger"] = default_loggers(self.stage, self.folder)
        return super().instantiate_trainer(default_root_dir=str(self.folder), **kwargs)


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
            before, now = (load_yaml(text) for text in (file.read_text(), self._text()))
            if told := list(differences(_settings(before), _settings(now))):
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
        (folder / self.config_filename).write_text(self._text())

    def _text(self) -> str:
        text: str = self.parser.dump(self.config, skip_none=False, format="yaml")
        return text


def work(cli: CLI, stage: str) -> None:
    """Run the stage, continuing an unfinished fit."""
    wanted = Evaluation if stage == "test" else Training
    if not isinstance(cli.model, wanted):
        got = type(cli.model).__name__
        raise ConfigError(f"adpur {stage} needs a model of class {wanted.__name__}, got {got}")
    if isinstance(cli.model, Training) and isinstance(cli.datamodule, ImageData):
        cli.datamodule.seed = cli.model.seed
    last = cli.folder / "checkpoints" / "last.ckpt"
    if stage == "validate":
        if not last.is_file():
            raise ConfigError(f"{last} does not exist: adpur fit with the same config makes it")
        cli.trainer.validate(cli.model, cli.datamodule, ckpt_path=str(last), weights_only=True)
        return
    if cli.config["fresh"]:
        set_aside(cli.folder)
    if stage == "fit":
        resume = str(last) if last.is_file() else None
        cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=resume, weights_only=True)
    else:
        cli.trainer.test(cli.model, cli.datamodule, verbose=False)
        if cli.trainer.is_global_zero and not cli.trainer.interrupted:
            show_run(cli.folder)
    if cli.trainer.interrupted:
        raise KeyboardInterrupt


def default_loggers(stage: str, folder: Path) -> list[Logger]:
    """A local CSV, and W&B: one run for a fit, one per row for a test."""
    csv = CSVLogger(str(folder), name="logs")  # a version a session: none overwrites another
    if stage == "fit":
        return [csv, AutoWandbLogger(save_dir=str(folder), name=folder.name)]
    return [csv, RowRuns(group=folder.name, save_dir=str(folder))] if stage == "test" else [csv]


def checkpoints(folder: Path) -> ModelCheckpoint:
    """The newest state, every epoch and whenever the fit is stopped."""
    return ModelCheckpoint(
        folder / "checkpoints", save_last=True, save_top_k=0, save_on_exception=True
    )


@rank_zero_only
def set_aside(folder: Path) -> None:
    """Move an old run folder out of the way; nothing is deleted."""
    if folder.exists():
        taken = next(
            n for n in range(1, 10_000) if not folder.with_name(f"{folder.name}.{n}").exists()
        )
        folder.rename(folder.with_name(f"{folder.name}.{taken}"))


def load_yaml(text: str) -> Any:
    """YAML in which 8/255 is a number.

    >>> load_yaml("{eps: 8/255, file: a/b}")
    {'eps': 0.03137254901960784, 'file': 'a/b'}
    """
    return _with_fractions(get_loader("yaml")(text))


class _ConfigFile(ActionConfigFile):
    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        super().__call__(parser, cfg, resolve_config(values), option_string)  # type: ignore[no-untyped-call]


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """What a fit's result depends on: everything but where and how it runs."""
    kept = {
        k: v
        for k, v in config.items()
        if k not in ("config", "run", "fresh", "threads", "vary", "only")
    }
    trainer = config.get("trainer", {})
    kept["trainer"] = {k: v for k, v in trainer.items() if k not in EXECUTION}
    return kept


def _with_fractions(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _with_fractions(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_fractions(v) for v in value]
    if isinstance(value, str) and FRACTION.fullmatch(value):
        top, bottom = value.split("/")
        return float(top) / float(bottom)
    return value


def _any(things: list[Any], kind: type) -> bool:
    return any(isinstance(thing, kind) for thing in things)


def _quiet() -> None:
    """Silence advice that is not for the user of a run."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    os.environ.setdefault("WANDB_SILENT", "true")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.*")
