"""What a diffusion model draws while it learns."""

from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only

from adpur.diffusion.sample import Sampler
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise
from adpur.lit.data.base import Batch
from adpur.lit.fit.diffusion import DenoiserTraining
from adpur.lit.logging.loggers import log_figure
from adpur.report.draw import figures


class SampleGrid(pl.Callback):
    """A grid of samples at every validation, from the same noise: one PNG, and W&B's panel.

    Put it after `EMA`, so that the averaged network draws.

    Args:
        count: images.
        stride: of the DDPM reverse process; T / stride network calls of `count` rows.
    """

    def __init__(self, count: int = 16, stride: int = 20) -> None:
        if count < 1:
            raise ConfigError(f"SampleGrid count must be a positive integer, got {count}")
        self.count, self.sampler = count, Sampler(stride)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse now what has nothing to draw."""
        if not isinstance(pl_module, DenoiserTraining):
            raise ConfigError("SampleGrid needs a fit of a diffusion model")
        self.sampler.check(pl_module.denoiser)

    @rank_zero_only
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draw beside the first batch, while averaged weights are in place."""
        if batch_idx or trainer.sanity_checking:
            return
        assert isinstance(pl_module, DenoiserTraining)
        samples = self.draw(pl_module)
        columns = -(-self.count // 2)
        lines = [("", samples[:columns]), ("", samples[columns:])]
        title = f"step {trainer.global_step}"
        file = Path(trainer.default_root_dir) / "samples" / f"{trainer.global_step:07d}.png"
        log_figure(trainer.loggers, "samples", figures.save(figures.image_grid(lines, title), file))

    def draw(self, module: DenoiserTraining) -> torch.Tensor:
        """Samples `(count, C, H, W)` about [0, 1], a function of the weights and the seed alone."""
        like = next(module.denoiser.parameters())
        noise = Noise(torch.arange(self.count, device=like.device), module.seed)
        return self.sampler.draw(module.denoiser, noise, like, self.count).float().cpu()
