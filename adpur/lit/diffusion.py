"""Fitting a diffusion model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from adpur.defense import ROWS
from adpur.errors import ConfigError
from adpur.level import ScoreNorm, calibrate
from adpur.lit.data.base import Batch, ImageData
from adpur.lit.training import Lent, Training, warmed
from adpur.models.adapters import DiffusersNet, EpsDenoiser, NetDenoiser
from adpur.models.denoiser import Denoiser
from adpur.models.networks import Networks
from adpur.models.zoo import build_unet, load_denoiser, save_denoiser
from adpur.noise import Noise, Source, Stream
from adpur.norms import save_reference
from adpur.schedule import DiscreteVP
from adpur.types import to_signed


class DenoiserTraining(Training):
    """A denoiser that is trained, watched by its noise error, and written with its score norms.

    Args:
        denoiser: the network.
        score_norms: SSNI statistics to measure on the validation images and save beside the
            weights.
    """

    TIMES = (10, 20, 50, 100, 200, 500)
    """Where the validation looks, in thousandths of the training times: DDPM's own t."""

    guide: Lent | None = None
    """The classifier the training has, if any."""

    def __init__(
        self,
        denoiser: Denoiser,
        export: str,
        lr: float,
        weight_decay: float = 0.0,
        score_norms: list[ScoreNorm] | None = None,
        seed: int = 0,
        compile: str | None = None,
    ) -> None:
        super().__init__(export, lr, weight_decay, seed, compile)
        self.denoiser = denoiser
        self.score_norms = score_norms or []
        self.eps_mse = torch.nn.ModuleDict({str(t): MeanMetric() for t in self.TIMES})

    @property
    def trained(self) -> nn.Module:
        """Without what turns its output into x0_hat, in fp64 and counted."""
        return self.denoiser.net if isinstance(self.denoiser, NetDenoiser) else self.denoiser

    @property
    def shape(self) -> tuple[int, ...]:
        """The denoiser's."""
        return tuple(self.denoiser.shape)

    @property
    def labeller(self) -> nn.Module | None:
        """The guide."""
        guide = self.guide
        return None if guide is None else guide.like(next(self.denoiser.parameters()))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """||eps_hat - eps||^2 at fixed times, with the same noise at every epoch."""
        x, _, index = batch
        for name, metric in self.eps_mse.items():
            share = torch.full((len(x),), (int(name) - 0.5) / 1000, device=x.device)
            noise = self._noise(index, Source.EVALUATE).fold(step=int(name))
            metric.update(self._squared_error(x, self._time(share), noise))  # type: ignore[operator]
            self.log(f"val/eps_mse_t{name}", metric, prog_bar=name == "100")  # type: ignore[arg-type]

    def networks(self, lent: Networks | None) -> Networks:
        """This diffusion model before a classifier: the one that is lent, else its own guide."""
        guide = Lent(lent.classifier) if lent is not None else self.guide
        if guide is None:
            raise ConfigError(
                "a diffusion fit has no classifier; write in the callback, networks: "
                "{class_path: adpur.pretrained, init_args: {classifier: NAME}}"
            )
        return Networks(guide.like(next(self.denoiser.parameters())), self.denoiser)

    def write(self, folder: Path) -> nn.Module:
        """The weights folder, with the score norms of the validation images beside it."""
        save_denoiser(self.denoiser, folder)
        written = load_denoiser(folder).eval()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.score_norms and isinstance(data, ImageData):
            x, _, index = data.stacked("validation")
            for score_norm in self.score_norms:
                measured = calibrate(x, Noise(index, self.seed), written, score_norm, ROWS)
                save_reference(measured, folder)
        return written

    def _shares(self, x: Tensor, noise: Noise) -> Tensor:
        """Where each image's time stands among the training times, uniform on (0, 1)."""
        return noise.uniform(x.flatten(1)[:, 0].double(), Stream.TIME)

    def _time(self, share: Tensor) -> Tensor:
        return self.denoiser.schedule.quantile(share)

    def _squared_error(self, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        x = to_signed(x)
        eps = noise.normal(x, Stream.FORWARD)
        x_t = self.denoiser.schedule.diffuse(x, t, eps)
        return (self.denoiser.eps(x_t, t) - eps).square().flatten(1).mean(1)


class DiffusionTraining(DenoiserTraining):
    """A DDPM (Ho et al. 2020): eps-prediction, L_simple, on a discrete VP schedule.

    Args:
        unet: constructor arguments of diffusers' `UNet2DModel`.
        warmup: steps of linear warm-up; 0 for none.
        cosine: fall to 0 along a cosine after it, or stay constant (Ho et al.).
        score_norms: SSNI statistics to measure on the validation images and save beside the
            weights.
    """

    def __init__(
        self,
        export: str,
        unet: dict[str, Any],
        lr: float = 2e-4,
        weight_decay: float = 0.0,
        warmup: int = 50,
        cosine: bool = True,
        score_norms: list[ScoreNorm] | None = None,
        seed: int = 0,
        compile: str | None = None,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = build_unet(unet, "model.unet")
        size = unet["sample_size"]
        shape = (unet["in_channels"], *((size, size) if isinstance(size, int) else size))
        denoiser = EpsDenoiser(DiffusersNet(net), DiscreteVP(), shape)
        super().__init__(denoiser, export, lr, weight_decay, score_norms, seed, compile)
        self.warmup, self.cosine = warmup, cosine

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """||eps - eps_hat||^2 at a uniform t in 1..T for each image (DDPM Eq. 14)."""
        t = self._time(self._shares(batch[0], noise))
        return self._squared_error(batch[0], t, noise).mean()

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up, and a cosine if wanted."""
        optimizer = self._adamw()
        steps = int(self.trainer.estimated_stepping_batches) if self.cosine else 0

        def factor(step: int) -> float:
            angle = torch.tensor(torch.pi * min(step / steps, 1.0) if self.cosine else 0.0)
            return warmed(step, self.warmup) * (0.5 + 0.5 * float(angle.cos()))

        return [optimizer], [{"scheduler": LambdaLR(optimizer, factor), "interval": "step"}]
