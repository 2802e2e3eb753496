"""Fitting a classifier."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torchmetrics.classification import MulticlassAccuracy

from adpur.addt.linf import ImagePGD
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.lit.data.base import Batch, ImageData
from adpur.lit.fit.training import Annealing, Training
from adpur.models.checkpoints.zoo import build_classifier, load_classifier, save_classifier
from adpur.models.classifiers import Classifier
from adpur.models.networks import Networks

SHOWN = 5_000
"""How many training images a network with a method `initialise` is shown."""


class ClassifierTraining(Training):
    """A classifier on images, adversarial or not, with Gaussian noise of random strength.

    Args:
        architecture: `CifarResNet`, `WideResNet`, `WhitenedConvNet`, or the name of a timm model.
            One that has a method `initialise` is given training images before the first step.
        arguments: its constructor's arguments.
        shape: (C, H, W) of the images.
        mean, std: the normalisation inside the classifier.
        noise: largest standard deviation of the added noise, in [0, 1] units.
        label_smoothing: share of the target spread evenly over all classes.
        lr: the peak of one cycle.
        annealing: the course of each learning rate of the optimizer; None for one cycle to `lr`.
        kwargs: of `Training`.
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
        label_smoothing: float = 0.0,
        lr: float = 1e-2,
        weight_decay: float = 1e-4,
        annealing: Annealing | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise ConfigError(f"label_smoothing: expected a share below 1, got {label_smoothing}")
        super().__init__(export, lr, weight_decay, seed, **kwargs)
        self.arguments = arguments or {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = build_classifier(architecture, self.arguments)
        self.classifier = Classifier(net, shape, mean or (0.0,), std or (1.0,)).to(
            memory_format=torch.channels_last if self.channels_last else torch.preserve_format
        )
        self.strength, self.adversary, self.label_smoothing = noise, adversary, label_smoothing
        self.annealing = annealing
        self.accuracy = MulticlassAccuracy(num_classes=None, average="micro")

    def setup(self, stage: str) -> None:
        """Show training images to a network whose first weights depend on them."""
        super().setup(stage)
        initialise = getattr(self.classifier.net, "initialise", None)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if stage == "fit" and initialise is not None and isinstance(data, ImageData):
            x, _, _ = data.leading("train", SHOWN)
            with torch.no_grad():
                initialise((x - self.classifier.mean.to(x)) / self.classifier.std.to(x))

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Cross-entropy."""
        x, y, _ = batch
        if self.adversary is not None:
            x = self.adversary.against(self.classifier, x, y, noise)
        strength = self.strength * noise.uniform(x[:, :1, :1, :1], Stream.TIME)
        logits = self.classifier(x + strength * noise.normal(x, Stream.FORWARD))
        return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)

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
        """As `annealing` says, or one cycle to `lr` and down to nearly 0."""
        optimizer = self._optimizer()
        steps = int(self.trainer.estimated_stepping_batches)
        if self.annealing is not None:
            return [optimizer], [self.annealing.schedule(optimizer, steps)]
        schedule = OneCycleLR(optimizer, self.lr, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def write(self, folder: Path) -> nn.Module:
        """See `save_classifier`."""
        save_classifier(self.classifier, self.arguments, folder, self.half_export)
        return load_classifier(folder)
