"""Callbacks that draw what the scoreboard and the records hold."""

from collections.abc import Callable

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray

from adpur import figures
from adpur.lit.evaluation import Evaluation
from adpur.lit.loggers import RowRuns
from adpur.metrics.scoreboard import Column, Outcome


class LevelHistograms(pl.Callback):
    """t(x) and score norms of every row that has a level per image, clean against attacked."""

    @rank_zero_only
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, write PNGs into the run folder, and send the values to W&B."""
        assert isinstance(pl_module, Evaluation)
        for row in pl_module.rows:
            for key, label, get in QUANTITIES:
                values = spread(pl_module.outcomes, row, get)
                if values:
                    figure = figures.histograms(values, label, row)
                    file = pl_module.records.folder / "figures" / figures.file_name(key, row)
                    figures.save(figure, file)
                    for logger in trainer.loggers:
                        if isinstance(logger, RowRuns):
                            logger.log_histograms(row, key, values)
                            logger.log_picture(row, f"{key}_figure", file)


class Gallery(pl.Callback):
    """Clean, adversarial and purified images of every attacked row."""

    @rank_zero_only
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the images the records keep."""
        assert isinstance(pl_module, Evaluation)
        for column, outcome in pl_module.outcomes.items():
            kept = pl_module.records.gallery(column)
            if column.clean or not kept:
                continue
            share = dict(zip(outcome.images.tolist(), outcome.correct.mean(axis=1), strict=True))
            notes = [f"{100 * share[i]:.0f} % right" for i in kept["index"].tolist()]
            rows = [(name, kept[name]) for name in ("clean", "adversarial", "purified")]
            name = figures.file_name("gallery", *map(str, column))
            file = pl_module.records.folder / "figures" / name
            figures.save(figures.image_grid(rows, str(column), notes), file)
            for logger in trainer.loggers:
                if isinstance(logger, RowRuns):
                    logger.log_picture(column.row, f"gallery/{column.attack}", file)


QUANTITIES: list[tuple[str, str, Callable[[Outcome], NDArray[np.float64]]]] = [
    ("t", "noise level t(x)", lambda outcome: outcome.t),
    ("score_norm", "score norm", lambda outcome: outcome.score_norm),
]


def spread(
    outcomes: dict[Column, Outcome], row: str, get: Callable[[Outcome], NDArray[np.float64]]
) -> dict[str, NDArray[np.float64]]:
    """A quantity of each column of a row, by attack; empty unless the row has score norms."""
    mine = {c: o for c, o in outcomes.items() if c.row == row}
    if not any(np.isfinite(o.score_norm).any() for o in mine.values()):
        return {}
    return {c.attack if c.clean else f"{c.attack} {c.eps:g}": get(o) for c, o in mine.items()}
