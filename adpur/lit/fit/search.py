"""What ADDT's search does to the noise, from the fit itself."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only

from adpur.addt.tally import Tally, shown
from adpur.errors import ConfigError
from adpur.lit.fit.addt import ADDT
from adpur.lit.logging.loggers import log_counts, log_figure
from adpur.report.draw.figures import counted, curves, rank_histograms, save


class SearchFigures(pl.Callback):
    """Ranks of the accumulated gradient (ADDT Fig. 9), lambda_t, and the guide's loss.

    Counted over all steps, on the images of the first process; drawn at every validation and at
    the end into `figures/` of the run folder, and on W&B. The guide's loss is the mean over the
    steps up to the first drawing, against those since the last but one.

    Args:
        top: the largest lambda_t on its axis; 10 for `LinfNoise`.
    """

    def __init__(self, top: float = 1.0) -> None:
        if not top > 0:
            raise ConfigError(f"SearchFigures top must be positive, got {top}")
        self.tally = Tally(top)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse now what has no search."""
        if not isinstance(pl_module, ADDT):
            raise ConfigError("SearchFigures belongs in the callbacks of a fit of adpur.ADDT")

    @rank_zero_only
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Count the step; a fit without a search has nothing to count."""
        assert isinstance(pl_module, ADDT)
        if pl_module.last is not None and len(pl_module.last.losses):
            self.tally.add(pl_module.last)

    @rank_zero_only
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw."""
        self._draw(trainer, pl_module)

    @rank_zero_only
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw what came after the last validation."""
        self._draw(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """All counts."""
        return {name: value.cpu() for name, value in self.tally.counts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.tally.counts = dict(state_dict)

    def _draw(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if "guide" not in self.tally.counts:  # nothing new
            return
        self.tally.close()
        assert isinstance(module, ADDT)
        counts = {name: value.cpu().numpy() for name, value in self.tally.counts.items()}
        edges = torch.linspace(0, self.tally.top, len(counts["weights"]) + 1).double().numpy()
        sums = {"first steps": counts["first"], "last steps": counts["last"]}
        guide = {name: v[:-1] / v[-1] for name, v in sums.items()}
        drawn = {
            "ranks": rank_histograms(counts["ranks"], shown(*module.denoiser.shape[1:])),
            "lambda": counted(counts["weights"], edges, "lambda_t", "share of images"),
            "guide": curves(guide, "iteration of the search", "guide's loss"),
        }
        for name, figure in drawn.items():
            file = Path(trainer.default_root_dir) / "figures" / f"search-{name}.png"
            log_figure(trainer.loggers, f"search/{name}", save(figure, file))
        log_counts(trainer.loggers, "search/lambda_counts", counts["weights"], edges)
