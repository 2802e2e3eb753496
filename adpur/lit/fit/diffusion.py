"""Fitting a diffusion model."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric

from adpur.defense.defense import ROWS
from adpur.diffusion.adapters import NetDenoiser
from adpur.diffusion.denoiser import Denoiser
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Source, Stream
from adpur.lit.data.base import Batch, ImageData
from adpur.lit.fit.training import Annealing, Lent, Training
from adpur.models.checkpoints.zoo import build_denoiser, load_denoiser, save_denoiser
from adpur.models.networks import Networks
from adpur.purify.levels.level import ScoreNorm, calibrate
from adpur.purify.levels.reference import save_reference
from adpur.types import to_signed


class DenoiserTraining(Training):
    """A denoiser that is trained, watched by its noise error, and written with its score norms.

    Args:
        denoiser: the network.
        max_time: train on times up to this one only, in the schedule's own unit (DDPM's steps): a
            purifier of t* 100 asks for no more than 100. The limit is written with the weights,
            and whoever asks them for a larger time is refused. None for all times of the network.
        score_norms: SSNI statistics to measure on the validation images and save beside the
            weights.
        kwargs: of `Training`.
    """

    TIMES = (10, 20, 50, 75, 100, 200, 500)
    """Where the validation looks, in thousandths of the training times: DDPM's own t. Times that
    the network is not trained on are left out."""

    guide: Lent | None = None
    """The classifier the training has, if any."""

    def __init__(
        self,
        denoiser: Denoiser,
        export: str,
        lr: float,
        max_time: float | None = None,
        score_norms: list[ScoreNorm] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(export, lr, **kwargs)
        if max_time is not None:
            _limit(denoiser, max_time)
        self.score_norms = score_norms or []
        for score_norm in self.score_norms:
            score_norm.check(denoiser)
        self.denoiser = denoiser.to(
            memory_format=torch.channels_last if self.channels_last else torch.preserve_format
        )
        self.eps_mse = torch.nn.ModuleDict({str(t): MeanMetric() for t in self._watched()})

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
            noise = self._noise(index, Source.EVALUATE).fold(step=int(name))
            t = self._thousandth(int(name)).to(x.device).expand(len(x))
            metric.update(self._squared_error(x, t, noise))  # type: ignore[operator]
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
        save_denoiser(self.denoiser, folder, self.half_export)
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

    def _thousandth(self, k: int) -> Tensor:
        """The time `(1,)` in the middle of the k-th thousandth of all training times."""
        return self.denoiser.schedule.quantile(torch.tensor([(k - 0.5) / 1000], device="cpu"))

    def _watched(self) -> list[int]:
        return [k for k in self.TIMES if self._thousandth(k).item() <= self.denoiser.max_time]

    def _squared_error(self, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        x = to_signed(x)
        eps = noise.normal(x, Stream.FORWARD)
        x_t = self.denoiser.schedule.diffuse(x, t, eps)
        return (self.denoiser.eps(x_t, t) - eps).square().flatten(1).mean(1)


class DiffusionTraining(DenoiserTraining):
    """A DDPM (Ho et al. 2020): eps-prediction, L_simple, on a discrete VP schedule.

    Args:
        unet: the network's constructor arguments.
        architecture: diffusers' `UNet2DModel`, or adpur's `LeanUNet` or `NCSNpp`.
        warmup: steps of linear warm-up; 0 for none.
        cosine: fall to 0 along a cosine after it, or stay constant (Ho et al.).
        kwargs: of `DenoiserTraining`.
    """

    def __init__(
        self,
        export: str,
        unet: dict[str, Any],
        architecture: str = "UNet2DModel",
        lr: float = 2e-4,
        warmup: int = 50,
        cosine: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            denoiser = build_denoiser(architecture, unet, "model.unet")
        super().__init__(denoiser, export, lr, seed=seed, **kwargs)
        self.annealing = Annealing("cosine" if cosine else "constant", warmup)

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """||eps - eps_hat||^2 at a uniform t in 1..T for each image (DDPM Eq. 14)."""
        t = self.denoiser.training_time(self._shares(batch[0], noise))
        return self._squared_error(batch[0], t, noise).mean()

    def configure_optimizers(self) -> Any:
        """With warm-up, and a cosine if wanted."""
        optimizer, steps = self._optimizer(), self.trainer.estimated_stepping_batches
        return [optimizer], [self.annealing.schedule(optimizer, steps)]


def _limit(denoiser: Denoiser, max_time: float) -> None:
    """Train `denoiser` on times up to `max_time`, which it must know already."""
    if max_time <= 0:
        raise ConfigError(f"max_time: expected a time above 0, got {max_time:g}")
    denoiser.check_time(max_time, f"max_time: {max_time:g}")
    denoiser.max_time = max_time
