"""Parse, resume if there is something to resume, run the stage, print what came out."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import yaml
from jsonargparse import ArgumentError, set_loader
from lightning.pytorch.utilities.exceptions import SIGTERMException

from adpur.cli.defaults import quiet
from adpur.cli.explain import explain, ours
from adpur.cli.folder import set_aside
from adpur.cli.parser import CLI
from adpur.cli.testing import test
from adpur.cli.values import load_yaml
from adpur.errors import ConfigError
from adpur.lit.data.base import ImageData
from adpur.lit.fit.estimate import estimate
from adpur.lit.fit.training import Training
from adpur.lit.run.signals import requeued
from adpur.lit.test.evaluation import Evaluation
from adpur.threat.knowledge import Knowledge


def run(stage: str, argv: Sequence[str]) -> int:
    """Parse, resume if there is something to resume, run the stage, print what came out."""
    quiet()
    cli = parse(stage, argv)
    _check_model(cli, stage)
    try:
        if isinstance(cli.model, Evaluation):
            test(cli, cli.model, argv)
        elif stage == "validate":
            cli.trainer.validate(cli.model, cli.datamodule, _state(cli), weights_only=True)
        else:
            _fit(cli)
        if cli.trainer.interrupted and not cli.config["dry_run"]:
            raise KeyboardInterrupt
    except SIGTERMException:
        print("adpur: terminated; the same command continues", file=sys.stderr)
        return 143
    except SystemExit:  # Lightning's answer to Ctrl-C
        if cli.trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    return 0


def parse(stage: str, argv: Sequence[str]) -> CLI:
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
    quiet()
    model = parse("test", ["-c", config, "--trainer.logger=false"]).model
    if not isinstance(model, Evaluation):
        raise ConfigError(f"{config} is not a test config: its model is {type(model).__name__}")
    return model


def _check_model(cli: CLI, stage: str) -> None:
    """Refuse a model of another stage; a fit's data takes its seed from the model."""
    wanted = Evaluation if stage == "test" else Training
    if not isinstance(cli.model, wanted):
        got = type(cli.model).__name__
        raise ConfigError(f"adpur {stage} needs a model of class {wanted.__name__}, got {got}")
    if isinstance(cli.model, Training) and isinstance(cli.datamodule, ImageData):
        cli.datamodule.seed = cli.model.seed


def _fit(cli: CLI) -> None:
    """Fit, from the last checkpoint where there is one; or say what it would cost."""
    if cli.config["dry_run"]:
        return print_cost(cli)
    if cli.config["fresh"] and not requeued():
        set_aside(cli.folder)
    last = _last(cli)
    resume = str(last) if last.is_file() else None
    cli.trainer.fit(cli.model, cli.datamodule, ckpt_path=resume, weights_only=True)


def print_cost(cli: CLI) -> None:
    """What the fit will cost, line by line as it is measured."""
    if not isinstance(cli.datamodule, ImageData):
        raise ConfigError(f"--dry-run needs data: a subclass of ImageData, got {cli.datamodule!r}")
    for line in estimate(cli.trainer, cli.model, cli.datamodule):
        print(line, flush=True)
    shutil.rmtree(cli.trainer.default_root_dir, ignore_errors=True)


def _last(cli: CLI) -> Path:
    return cli.folder / "checkpoints" / "last.ckpt"


def _state(cli: CLI) -> str:
    last = _last(cli)
    if not last.is_file():
        raise ConfigError(f"{last} does not exist: adpur fit with the same config makes it")
    return str(last)
