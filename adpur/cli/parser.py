"""The command line of a stage: LightningCLI with config names, sweeps and errors as one line."""

import tempfile
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.profilers import SimpleProfiler

from adpur.cli.beside import beside
from adpur.cli.defaults import default_loggers
from adpur.cli.keep import KeepConfig
from adpur.cli.sweep import Vary, choose, expand
from adpur.errors import ConfigError
from adpur.lit.data.share import Shard
from adpur.lit.run.trainer import Trainer
from adpur.shipped import resolve_config


class CLI(LightningCLI):
    """LightningCLI for one stage; config names, run folders, and errors as one line."""

    def __init__(self, stage: str, argv: list[str]) -> None:
        self.stage, self.words = stage, argv
        super().__init__(
            pl.LightningModule,
            pl.LightningDataModule,
            save_config_callback=None,
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
        parser.add_argument("--shard", type=str | None, default=None, help="k/n: every n-th batch")
        parser.add_argument("--dry-run", action="store_true", help="cost, measured and estimated")
        parser.add_argument("--fresh", action="store_true", help="start anew in an empty folder")
        parser.add_argument(
            "--mixed", action="store_true", help="go on where another device or torch began; marked"
        )

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
        if self.stage != "test":
            words = ("only", "vary", "shard", "mixed")
            for told in words if self.stage == "fit" else (*words, "dry_run"):
                if self.config[told]:
                    word = told.replace("_", "-")
                    raise ConfigError(f"{word} belongs to adpur test, not to adpur {self.stage}")
        self._choose_shard()
        self._choose_rows()

    def _choose_shard(self) -> None:
        # neither is a part of the resolved config, which a later session may start from
        self.mixed, self.config["mixed"] = self.config["mixed"], False
        text, self.config["shard"] = self.config["shard"], None
        self.shard = Shard.parse(text) if text is not None else None
        if text is not None and self.config["fresh"]:
            raise ConfigError(
                "fresh would set aside what other shards are writing; "
                "move the run folder yourself, or name another with --run"
            )

    def _choose_rows(self) -> None:
        only, vary = self.config["only"], self.config["vary"]
        if only or vary:
            self.config["run"] = str(self.folder)
            left_out = choose(self.config, only.split(",")) if only else ()
            expand(self.config, {row: s for row, s in (vary or {}).items() if row not in left_out})
            self.config["only"] = self.config["vary"] = None
            self.config = self.parser.parse_object(self.config)

    @property
    def folder(self) -> Path:
        """runs/<name of the first config and what was chosen of it>, or what `--run` says."""
        name = Path(str(self.config["config"][0])).stem
        asked = any(word.split("=")[0] == "--vary" for word in self.words)  # not in the file
        vary = self.config["vary"] if asked else ()
        chosen = [self.config["only"], *(f"vary-{row}" for row in vary or ())]
        named = self.config["run"] or Path("runs") / "-".join([name, *filter(None, chosen)])
        return Path(named).expanduser()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Results below the run folder, loggers and a bar unless the config has its own."""
        config = self._get(self.config_init, "trainer")
        if self.stage == "fit" and self.config["dry_run"]:  # measured, and nothing written
            self.save_config_callback = None
            kwargs |= {"logger": False, "enable_checkpointing": False, "profiler": SimpleProfiler()}
            kwargs |= {"enable_progress_bar": False, "default_root_dir": tempfile.mkdtemp()}
            return super().instantiate_trainer(**kwargs)
        given = config["callbacks"] or []
        given = given if isinstance(given, list) else [given]
        keep = [] if config["fast_dev_run"] else [KeepConfig(self.parser, self.config)]
        bar = config["enable_progress_bar"] is not False
        config["callbacks"] = beside(self.stage, given, bar, keep)
        if config["logger"] is None:
            kwargs["logger"] = default_loggers(self.stage, self.folder)
        return super().instantiate_trainer(default_root_dir=str(self.folder), **kwargs)


class _ConfigFile(ActionConfigFile):
    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        super().__call__(parser, cfg, resolve_config(values), option_string)  # type: ignore[no-untyped-call]
