"""Fit stages: the parts of training that every network of adpur shares, and two leaves."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from adpur.defense import ROWS
from adpur.level import ScoreNorm, calibrate
from adpur.lit.data.base import Batch, ImageData
from adpur.lit.loggers import AutoWandbLogger
from adpur.models.adapters import DiffusersNet, EpsDenoiser
from adpur.models.classifiers import Classifier
from adpur.models.fingerprint import fingerprint
from adpur.models.zoo import (
    build_classifier,
    build_unet,
    load_classifier,
    load_denoiser,
    save_classifier,
    save_denoiser,
)
from adpur.noise import Noise, Source, Stream
from adpur.norms import save_reference
from adpur.schedule import DiscreteVP
from adpur.types import to_signed


class Training(pl.LightningModule):
    """One network, trained and written to a folder of safetensors and JSON.

    All randomness of a step is a function of (seed, step, image), dropout's of (seed, step,
    process), and the data module keeps the place in the data: a resumed fit equals an
    uninterrupted one.

    Args:
        export: folder the trained weights are written to; `adpur test` reads nothing else.
        lr: peak learning rate of AdamW.
        weight_decay: AdamW's.
        seed: of every draw.
    """

    def __init__(self, export: str, lr: float, weight_decay: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        self.export, self.lr, self.weight_decay, self.seed = Path(export), lr, weight_decay, seed

    @abstractmethod
    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """The scalar training loss of a batch, with keyed noise."""

    @abstractmethod
    def write(self, folder: Path) -> nn.Module:
        """Write the weights, and return the network as a test will load it."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step; dropout's generator is set from the position, so a resume repeats it."""
        torch.manual_seed((self.seed * 1_000_003 + self.global_step) * 4099 + self.global_rank)
        loss = self.loss(batch, self._noise(batch[2], Source.TRAIN))
        self.log("train/loss", loss, prog_bar=True)
        return loss

    @rank_zero_only
    def on_fit_end(self) -> None:
        """Export, unless the fit was stopped early; averaged weights are in place by now."""
        if not self.trainer.interrupted:
            made = fingerprint(self.write(self.export))
            print(f"weights: {self.export}")
            for logger in self.loggers:
                if isinstance(logger, AutoWandbLogger):
                    logger.log_weights(self.export, made)

    def _noise(self, index: Tensor, source: Source) -> Noise:
        step = self.global_step if source is Source.TRAIN else 0
        return Noise(index, self.seed, source, restart=step >> 20, iteration=step & 0xFFFFF)

    def _adamw(self) -> AdamW:
        return AdamW(self.parameters(), self.lr, weight_decay=self.weight_decay, fused=True)


class ClassifierTraining(Training):
    """A classifier on clean images with Gaussian noise of random strength.

    Args:
        architecture: `CifarResNet` or the name of a timm model.
        arguments: its constructor's arguments.
        shape: (C, H, W) of the images.
        mean, std: the normalisation inside the classifier.
        noise: largest standard deviation of the added noise, in [0, 1] units.
    """

    def __init__(
        self,
        export: str,
        architecture: str = "CifarResNet",
        arguments: dict[str, Any] | None = None,
        shape: tuple[int, int, int] = (3, 32, 32),
        mean: list[float] | None = None,
        std: list[float] | None = None,
        noise: float = 0.0,
        lr: float = 1e-2,
        weight_decay: float = 1e-4,
        seed: int = 0,
    ) -> None:
        super().__init__(export, lr, weight_decay, seed)
        self.arguments = arguments or {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = build_classifier(architecture, self.arguments)
        self.classifier = Classifier(net, shape, mean or (0.0,), std or (1.0,))
        self.strength = noise
        self.accuracy = MulticlassAccuracy(num_classes=None, average="micro")

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Cross-entropy."""
        x, y, _ = batch
        strength = self.strength * noise.uniform(x[:, :1, :1, :1], Stream.TIME)
        return F.cross_entropy(self.classifier(x + strength * noise.normal(x, Stream.FORWARD)), y)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Clean accuracy."""
        self.accuracy(self.classifier(batch[0]).argmax(1), batch[1])
        self.log("val/acc", self.accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """AdamW with one cycle."""
        optimizer = self._adamw()
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = OneCycleLR(optimizer, self.lr, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def write(self, folder: Path) -> nn.Module:
        """See `save_classifier`."""
        save_classifier(self.classifier, self.arguments, folder)
        return load_classifier(folder)


class DiffusionTraining(Training):
    """A DDPM (Ho et al. 2020): eps-prediction, L_simple, on a discrete VP schedule.

    Args:
        unet: constructor arguments of diffusers' `UNet2DModel`.
        warmup: steps of linear warm-up before the cosine.
        score_norms: SSNI statistics to measure on the validation images and save beside the
            weights.
    """

    TIMES = (10, 20, 50, 100, 200, 500)

    def __init__(
        self,
        export: str,
        unet: dict[str, Any],
        lr: float = 2e-4,
        weight_decay: float = 0.0,
        warmup: int = 50,
        score_norms: list[ScoreNorm] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(export, lr, weight_decay, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = build_unet(unet, "model.unet")
        size = unet["sample_size"]
        shape = (unet["in_channels"], *((size, size) if isinstance(size, int) else size))
        self.denoiser = EpsDenoiser(DiffusersNet(net), DiscreteVP(), shape)
        self.warmup, self.score_norms = warmup, score_norms or []
        self.eps_mse = torch.nn.ModuleDict({str(t): MeanMetric() for t in self.TIMES})

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """||eps - eps_hat||^2 at a uniform t in 1..T for each image (DDPM Eq. 14)."""
        share = noise.uniform(batch[0].flatten(1)[:, 0].double(), Stream.TIME)
        t = (share * self.denoiser.schedule.end).long() + 1
        return self._squared_error(batch[0], t, noise).mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same loss at fixed times, with the same noise at every epoch."""
        x, _, index = batch
        for name, metric in self.eps_mse.items():
            t = torch.full((len(x),), int(name), device=x.device)
            noise = self._noise(index, Source.EVALUATE).fold(step=int(name))
            metric.update(self._squared_error(x, t, noise))  # type: ignore[operator]
            self.log(f"val/eps_mse_t{name}", metric, prog_bar=name == "100")  # type: ignore[arg-type]

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine."""
        optimizer = self._adamw()
        steps = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            angle = torch.tensor(torch.pi * min(step / steps, 1.0))
            return min(1.0, (step + 1) / self.warmup) * (0.5 + 0.5 * float(angle.cos()))

        return [optimizer], [{"scheduler": LambdaLR(optimizer, factor), "interval": "step"}]

    def write(self, folder: Path) -> nn.Module:
        """A diffusers pipeline folder, with the score norms of the validation images beside it."""
        save_denoiser(self.denoiser, folder)
        written = load_denoiser(folder).eval()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if self.score_norms and isinstance(data, ImageData):
            x, _, index = data.stacked("validation")
            for score_norm in self.score_norms:
                measured = calibrate(x, Noise(index, self.seed), written, score_norm, ROWS)
                save_reference(measured, folder)
        return written

    def _squared_error(self, x: Tensor, t: Tensor, noise: Noise) -> Tensor:
        x = to_signed(x)
        eps = noise.normal(x, Stream.FORWARD)
        x_t = self.denoiser.schedule.diffuse(x, t, eps)
        return (self.denoiser.eps(x_t, t) - eps).square().flatten(1).mean(1)
