"""What a finished evaluation tells its loggers."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import Logger

from adpur.judging.records import Records, describe, digest
from adpur.judging.scoreboard import Column, Outcome
from adpur.lit.logging.loggers import RowRuns
from adpur.lit.logging.summary import row_summary


def start_runs(loggers: Sequence[Logger], rows: Mapping[str, Any], identity: Any) -> None:
    """A W&B run for each row; the same identity, as first written, goes on with the same run."""
    for row_runs in _row_runs(loggers):
        for name, row in rows.items():
            row_runs.start(name, describe(row), digest([identity, name]))


def log_columns(loggers: Sequence[Logger], outcomes: Mapping[Column, Outcome]) -> None:
    """Every estimand of every column to every logger."""
    named = {
        f"{column}/{key}": value
        for column, outcome in outcomes.items()
        for key, value in outcome.summary().items()
    }
    for logger in loggers:
        logger.log_metrics(named, step=0)


def log_rows(
    loggers: Sequence[Logger], outcomes: dict[Column, Outcome], blocks: dict[str, Any],
    records: Records, weights: Mapping[str, dict[str, str]],
    older: Callable[[], Mapping[str, str]],
) -> None:  # fmt: skip
    """Each row to its own W&B run, with the weights it was tested with and its records.

    `older` gives the fingerprints under which adpur 0.1.0 logged weights, by today's.
    """
    seconds = records.seconds()
    manifest = (records.folder / "manifest.json").read_text()
    for row_runs in _row_runs(loggers):
        before = older()
        for row, prints in weights.items():
            row_runs.log_row(row, row_summary(row, outcomes, seconds, blocks))
            row_runs.use_networks(row, prints, before)
            told = {"weights": prints, "identity_sha256": json.loads(manifest)["sha256"]}
            files = {"manifest.json": manifest, "rows.jsonl": records.lines(row)}
            row_runs.log_records(row, told, files)


def _row_runs(loggers: Sequence[Logger]) -> list[RowRuns]:
    return [logger for logger in loggers if isinstance(logger, RowRuns)]
