"""One training batch as an adversary sees it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adpur.diffusion.denoiser import Denoiser
from adpur.types import to_unit


class Restored(NamedTuple):
    """What one network call makes of a noised batch: `x_t`, and the image `x0` it sees in it."""

    x_t: Tensor
    x0: Tensor


@dataclass(frozen=True, eq=False)
class Case:
    """Images, labels and times of one step, and the two networks.

    Args:
        x: images `(B, C, H, W)` in [-1, 1].
        y: labels `(B,)`.
        t: times `(B,)` in the denoiser's schedule.
        denoiser: the network that is trained.
        classifier: from [0, 1] images to logits; only guides.
    """

    x: Tensor
    y: Tensor
    t: Tensor
    denoiser: Denoiser
    classifier: nn.Module

    def rows(self, rows: Tensor) -> "Case":
        """The case of some of its images."""
        return replace(self, x=self.x[rows], y=self.y[rows], t=self.t[rows])

    @property
    def image(self) -> Tensor:
        """The images in [0, 1]."""
        return to_unit(self.x)

    @property
    def ratio(self) -> Tensor:
        """gamma_t = alpha_t / sigma_t, fp64 `(B,)` (ADDT Eq. 7)."""
        return self.denoiser.schedule.snr(self.t).sqrt()

    def restored(self, eps: Tensor) -> Restored:
        """P(x'_t, t): the one-step x0_hat of the images under the noise `eps`, not clamped."""
        x_t = self.denoiser.schedule.diffuse(self.x, self.t, eps)
        return Restored(x_t, self.denoiser(x_t, self.t))

    def logits(self, x0: Tensor) -> Tensor:
        """What the classifier says of `x0` in [-1, 1]; `(B, classes)`."""
        logits: Tensor = self.classifier(to_unit(x0))
        return logits

    def noise_of(self, seen: Restored) -> Tensor:
        """eps_hat of what was restored."""
        return self.denoiser.schedule.noise_in(seen.x_t, seen.x0, self.t)


@contextmanager
def borrowed(network: nn.Module, train: bool) -> Iterator[None]:
    """A network differentiated in its input alone, in training mode or not; restored after.

    No weight gradient is computed, stored, or sent to other processes (DDP's hooks hang on them).
    """
    wanted = [p for p in network.parameters() if p.requires_grad]
    before = {module: module.training for module in network.modules()}
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        network.train(train and network.training)
        with torch.enable_grad():
            yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
        for module, mode in before.items():
            module.training = mode
