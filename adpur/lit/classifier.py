"""Fitting a classifier."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics.classification import MulticlassAccuracy

from adpur.addt.linf import ImagePGD
from adpur.lit.data.base import Batch
from adpur.lit.training import Training
from adpur.models.classifiers import Classifier
from adpur.models.networks import Networks
from adpur.models.zoo import build_classifier, load_classifier, save_classifier
from adpur.noise import Noise, Stream


class ClassifierTraining(Training):
    """A classifier on images, adversarial or not, with Gaussian noise of random strength.

    Args:
        architecture: `CifarResNet` or the name of a timm model.
        arguments: its constructor's arguments.
        shape: (C, H, W) of the images.
        mean, std: the normalisation inside the classifier.
        noise: largest standard deviation of the added noise, in [0, 1] units.
        lr: the peak of one cycle.
        optimizer: its constructor; AdamW with `weight_decay` if None.
        adversary: adversarial training (Madry et al. 2018): each step on the images this search
            finds; None for none.
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
        adversary: ImagePGD | None = None,
        lr: float = 1e-2,
        weight_decay: float = 1e-4,
        optimizer: OptimizerCallable | None = None,
        seed: int = 0,
        compile: str | None = None,
    ) -> None:
        super().__init__(export, lr, weight_decay, seed, compile)
        self.arguments = arguments or {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = build_classifier(architecture, self.arguments)
        self.classifier = Classifier(net, shape, mean or (0.0,), std or (1.0,))
        self.strength, self.adversary = noise, adversary
        self.optimizer = optimizer
        self.accuracy = MulticlassAccuracy(num_classes=None, average="micro")

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Cross-entropy."""
        x, y, _ = batch
        if self.adversary is not None:
            x = self.adversary.against(self.classifier, x, y, noise)
        strength = self.strength * noise.uniform(x[:, :1, :1, :1], Stream.TIME)
        return F.cross_entropy(self.classifier(x + strength * noise.normal(x, Stream.FORWARD)), y)

    def networks(self, lent: Networks | None) -> Networks:
        """This classifier, behind the diffusion model that is lent, if one is."""
        like = next(self.classifier.parameters())
        return Networks(self.classifier, lent.denoiser.to(like) if lent is not None else None)

    @property
    def trained(self) -> nn.Module:
        """All of it."""
        return self.classifier

    @property
    def shape(self) -> tuple[int, ...]:
        """As configured."""
        return tuple(self.classifier.shape)

    @property
    def labeller(self) -> nn.Module:
        """Itself."""
        return self.classifier

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Clean accuracy."""
        self.accuracy(self.classifier(batch[0]).argmax(1), batch[1])
        self.log("val/acc", self.accuracy, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """One cycle to `lr` and down to nearly 0."""
        make = self.optimizer
        optimizer = self._adamw() if make is None else make(self.parameters())
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = OneCycleLR(optimizer, self.lr, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def write(self, folder: Path) -> nn.Module:
        """See `save_classifier`."""
        save_classifier(self.classifier, self.arguments, folder)
        return load_classifier(folder)
