"""Callbacks that draw what the records hold, and hand it to the loggers."""

from collections.abc import Iterable

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_only

from adpur.lit.logging.loggers import RowRuns
from adpur.lit.test.evaluation import Evaluation
from adpur.report.draw.figures import Drawn, draw_galleries, draw_levels


class LevelHistograms(pl.Callback):
    """t(x) and score norms of every row that has a level per image, clean against attacked."""

    @rank_zero_only
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, write PNGs into the run folder, and send the values to W&B."""
        assert isinstance(pl_module, Evaluation)
        _log(trainer, draw_levels(pl_module.outcomes, pl_module.records.folder))


class Gallery(pl.Callback):
    """Clean, adversarial and purified images of every attacked row."""

    @rank_zero_only
    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the images the records keep."""
        assert isinstance(pl_module, Evaluation)
        _log(trainer, draw_galleries(pl_module.outcomes, pl_module.records))


def _log(trainer: pl.Trainer, drawings: Iterable[Drawn]) -> None:
    loggers = [logger for logger in trainer.loggers if isinstance(logger, RowRuns)]
    for drawn in drawings:
        for logger in loggers:
            if drawn.values:
                logger.log_histograms(drawn.row, drawn.key, drawn.values)
            name = f"{drawn.key}_figure" if drawn.values else drawn.key
            logger.log_picture(drawn.row, name, drawn.file)
