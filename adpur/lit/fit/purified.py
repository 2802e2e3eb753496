"""What a diffusion fit is for: what a classifier makes of purified images, while training."""

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from adpur.addt.case import borrowed
from adpur.defense.defense import ROWS, Defense
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise
from adpur.lit.data.base import Batch
from adpur.lit.fit.diffusion import DenoiserTraining
from adpur.lit.fit.first import FirstImages
from adpur.lit.fit.training import Training
from adpur.models.networks import Networks
from adpur.purify.base import Purifier


class PurifiedAccuracy(FirstImages):
    """The accuracy of a classifier on purified validation images, `val/purified_acc_NAME`.

    One purification of each image, under the same keys at every validation. The validation images
    belong to no fit of adpur's data sets; a classifier from elsewhere may have seen them.

    Args:
        purifiers: each by the NAME it is logged under.
        networks: whose classifier to ask, in place of the fit's own.
        images: the first of the validation images.
        every: measure at each `every`-th validation.
        rows: R, rows of every network call.
    """

    def __init__(
        self,
        purifiers: dict[str, Purifier],
        networks: Networks | None = None,
        images: int = 256,
        every: int = 1,
        rows: int = ROWS,
    ) -> None:
        super().__init__(images, every)
        if not purifiers:
            raise ConfigError("PurifiedAccuracy: expected at least one purifier by name, got none")
        self.purifiers, self.lent, self.rows = purifiers, networks, rows
        self.metrics = {name: MeanMetric() for name in purifiers}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse now what could not work at the first validation."""
        if not isinstance(pl_module, DenoiserTraining):
            raise ConfigError("PurifiedAccuracy belongs in the callbacks of a diffusion fit")
        with borrowed(pl_module, train=False):
            self._defenses(pl_module)

    def measure(self, module: Training, batch: Batch, position: Tensor) -> None:
        """Purify and classify; the module is lent, and left as it was."""
        x, y, index = batch
        with borrowed(module, train=False), torch.no_grad():
            for name, defense in self._defenses(module).items():
                correct = defense(x, Noise(index, module.seed)).logits.argmax(1) == y
                self.metrics[name].to(module.device).update(correct.float())

    def found(self) -> dict[str, Tensor]:
        """Shares of images."""
        found = {f"val/purified_acc_{name}": m.compute() for name, m in self.metrics.items()}
        for metric in self.metrics.values():
            metric.reset()
        return found

    def _defenses(self, module: Training) -> dict[str, Defense]:
        nets = module.networks(self.lent)
        return {name: Defense(p, nets, self.rows) for name, p in self.purifiers.items()}
