"""Weights & Biases, without ever asking a question or waiting for a dead network."""

import json
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from adpur.errors import ConfigError

Mode = Literal["online", "offline", "disabled"]


def wandb_mode() -> str:
    """$WANDB_MODE, else online with a working key, else offline; decides within 5 s, silently."""
    import wandb

    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    try:
        return "online" if wandb.login(prompt=False, timeout=5) else "offline"
    except (wandb.errors.AuthenticationError, wandb.errors.CommError):
        return "offline"


def signed_in() -> str:
    """The entity of the W&B key at hand, or an error that says there is none."""
    import wandb

    if (mode := wandb_mode()) != "online":
        raise ConfigError(
            f"expected a W&B key that works, got mode {mode}: run `wandb login`, or set "
            "WANDB_API_KEY and unset WANDB_MODE"
        )
    return str(wandb.Api().default_entity)


class AutoWandbLogger(WandbLogger):
    """Lightning's logger for a fit, in the mode `wandb_mode` finds."""

    def __init__(
        self,
        project: str = "adpur",
        save_dir: str = "runs",
        mode: Mode | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("resume") is None:  # the command line passes None explicitly
            kwargs["resume"] = "allow"
        super().__init__(project=project, save_dir=save_dir, mode=mode or wandb_mode(), **kwargs)
        self._wandb_init.pop("anonymous", None)  # wandb warns of the word, Lightning always says it

    @rank_zero_only
    def log_weights(self, folder: Path, fingerprint: str) -> None:
        """The folder a fit exported, as an artifact named after what the network is."""
        import wandb

        name = weights_name(fingerprint)
        artifact = wandb.Artifact(name, "weights", metadata={"fingerprint": fingerprint})
        artifact.add_dir(str(folder))
        self.experiment.log_artifact(artifact)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the run: a second fit in the same process must not go on with it."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish()


def weights_name(fingerprint: str) -> str:
    """The artifact a fit logs its weights as, and by which a test finds them."""
    return f"weights-{fingerprint[:16]}"


def log_figure(loggers: Iterable[Logger], key: str, file: Path) -> None:
    """A PNG of a fit, to its W&B runs."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [str(file)])


def log_counts(
    loggers: Iterable[Logger], key: str, counts: NDArray[np.int64], edges: NDArray[np.float64]
) -> None:
    """A histogram of a fit, already counted: `counts` between `edges`, one more than counts."""
    import wandb

    for logger in loggers:
        if isinstance(logger, WandbLogger):
            made = wandb.Histogram(np_histogram=(counts.tolist(), edges.tolist()))
            logger.log_metrics({key: made})


class RowRuns(Logger):
    """One W&B run for each row of an evaluation, grouped, with the same summary keys in each.

    Args:
        project: of the runs.
        group: of the runs; the run folder's name by default.
        save_dir: where offline runs are kept.
        mode: found by `wandb_mode` by default.
    """

    def __init__(
        self,
        project: str = "adpur",
        group: str | None = None,
        save_dir: str = "runs",
        mode: Mode | None = None,
    ) -> None:
        super().__init__()
        self.project, self.group, self.mode = project, group, mode
        self.folder = Path(save_dir)
        self.runs: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The project."""
        return self.project

    @property
    def version(self) -> str | None:
        """The group."""
        return self.group

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        """Rows bring their own configuration."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Rows are logged by `log_row`, under fixed keys."""

    def start(self, row: str, config: dict[str, Any], identity: str) -> None:
        """Open the run of a row; the same identity goes on with the same W&B run."""
        import wandb

        self.mode = self.mode or wandb_mode()  # type: ignore[assignment]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.runs[row] = wandb.init(
            project=self.project,
            group=self.group,
            name=row,
            job_type="test",
            dir=self.folder,
            mode=self.mode,
            config=config,
            reinit="create_new",
            id=identity[:16],
            resume="allow",
            settings=wandb.Settings(silent=True, console="off", init_timeout=20),
        )

    def log_row(self, row: str, metrics: dict[str, float]) -> None:
        """History and summary of a row."""
        self.runs[row].log(metrics)
        self.runs[row].summary.update(metrics)

    def use_networks(
        self, row: str, fingerprints: dict[str, str], older: Mapping[str, str]
    ) -> None:
        """Link a row to the weights it was tested with, by their fingerprint.

        W&B links to an artifact only online, and only if the fit that made it was logged, perhaps
        by adpur 0.1.0 under the fingerprint that `older` holds; otherwise the fingerprint itself is
        logged, under which a person or `adpur dashboard` finds the fit.
        """
        for part, told in fingerprints.items():
            if not (self._linked(row, told) or (told in older and self._linked(row, older[told]))):
                self._log_network(row, part, told)

    def _linked(self, row: str, fingerprint: str) -> bool:
        import wandb

        try:
            self.runs[row].use_artifact(f"{weights_name(fingerprint)}:latest")
        except (TypeError, ValueError, wandb.errors.CommError):  # offline, none, no network
            return False
        return True

    def _log_network(self, row: str, part: str, fingerprint: str) -> None:
        import wandb

        told = {"part": part, "fingerprint": fingerprint, "weights": weights_name(fingerprint)}
        artifact = wandb.Artifact(f"network-{fingerprint[:16]}", "network", metadata=told)
        with artifact.new_file("network.json") as stream:
            json.dump(told, stream)
        self.runs[row].log_artifact(artifact)

    def log_records(self, row: str, told: dict[str, Any], files: dict[str, str]) -> None:
        """A row's records as an artifact: texts by file name, and what they are as metadata."""
        import wandb

        artifact = wandb.Artifact(f"records-{self.runs[row].id}", "records", metadata=told)
        for name, text in files.items():
            with artifact.new_file(name) as stream:
                stream.write(text)
        self.runs[row].log_artifact(artifact)

    def log_histograms(self, row: str, key: str, values: dict[str, NDArray[np.float64]]) -> None:
        """A histogram of each attack's finite values."""
        import wandb

        finite = {name: v[np.isfinite(v)] for name, v in values.items()}
        self.runs[row].log({f"{key}/{n}": wandb.Histogram(v.tolist()) for n, v in finite.items()})

    def log_picture(self, row: str, key: str, file: Path) -> None:
        """A PNG."""
        import wandb

        self.runs[row].log({key: wandb.Image(str(file))})

    def finalize(self, status: str) -> None:
        """Finish every run, and say how to upload offline ones."""
        for run in self.runs.values():
            run.finish(exit_code=0 if status == "success" else 1)
        if self.runs and self.mode == "offline":
            print(f"W&B runs, offline: wandb sync {self.folder}/wandb/offline-run-*")
        self.runs = {}
