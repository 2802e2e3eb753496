"""How far samples are from images, while training."""

from importlib.util import find_spec
from pathlib import Path

import lightning.pytorch as pl
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from adpur.addt.case import borrowed
from adpur.defense.defense import ROWS
from adpur.diffusion.sample import Sampler
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise
from adpur.lit.data.base import Batch
from adpur.lit.fit.diffusion import DenoiserTraining
from adpur.lit.fit.first import FirstImages
from adpur.lit.fit.training import Training
from adpur.models.checkpoints.unpickle import read_torch
from adpur.models.features import Penultimate
from adpur.models.networks import Networks


class FrechetDistance(FirstImages):
    """The Frechet distance of samples to validation images at validations (ADDT Table 7 has FID).

    Without Inception's weights, the features are the penultimate ones of the fit's classifier and
    the metric is `val/frechet_classifier`: a stand-in, not FID, comparable only between fits with
    the same classifier and number of images. An ADDT fit was trained on that very classifier's
    gradients: expect it to be flattered. With `weights` it is `val/fid`.

    Args:
        images: validation images, and as many samples; fewer where there are fewer. The bias of
            few is large: the published figures have 50,000.
        stride: of the DDPM reverse process.
        every: measure at each `every`-th validation.
        weights: the file `pt_inception-2015-12-05-6726825d.pth` of torch-fidelity.
        networks: whose classifier's features to take, in place of the fit's own.
    """

    labelled = False

    def __init__(
        self,
        images: int = 1000,
        stride: int = 20,
        every: int = 1,
        weights: Path | None = None,
        networks: Networks | None = None,
    ) -> None:
        super().__init__(images, every)
        if weights is not None:
            _check_inception(weights)
        self.sampler, self.weights, self.lent = Sampler(stride), weights, networks
        self.metric: FrechetInceptionDistance | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Find the features."""
        if not isinstance(pl_module, DenoiserTraining):
            raise ConfigError("FrechetDistance needs a fit of a diffusion model")
        self.sampler.check(pl_module.denoiser)
        if self.weights is not None:
            path = str(self.weights)
            self.metric = FrechetInceptionDistance(
                normalize=True, feature_extractor_weights_path=path
            )
        else:
            with borrowed(pl_module, train=False):
                classifier = pl_module.networks(self.lent).classifier
            self.metric = FrechetInceptionDistance(Penultimate(classifier), normalize=True)

    def measure(self, module: Training, batch: Batch, position: Tensor) -> None:
        """A sample for each image, from noise of its position."""
        assert isinstance(module, DenoiserTraining)
        assert self.metric is not None
        x, metric = batch[0], self.metric.to(module.device)
        noise = Noise(position, module.seed)
        with borrowed(module, train=False):
            sample = self.sampler.draw(module.denoiser, noise, x, ROWS).clamp(0, 1)
        metric.update(self._seen_by(x), real=True)
        metric.update(self._seen_by(sample), real=False)

    def found(self) -> dict[str, Tensor]:
        """The distance; torchmetrics adds the features' moments of all processes."""
        assert self.metric is not None
        value = self.metric.compute()
        self.metric.reset()
        return {"val/frechet_classifier" if self.weights is None else "val/fid": value}

    def _seen_by(self, x: Tensor) -> Tensor:
        """Inception wants colours."""
        return x if self.weights is None else x.float().expand(-1, 3, -1, -1)


def _check_inception(weights: Path) -> None:
    if find_spec("torch_fidelity") is None:
        raise ConfigError("FrechetDistance weights need torch-fidelity: pip install 'adpur[fid]'")
    if not weights.is_file():
        raise ConfigError(f"FrechetDistance weights: {weights} is not a file")
    read_torch(weights)  # torch-fidelity would run what a file of another kind holds
