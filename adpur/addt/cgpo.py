"""Classifier-Guided Perturbation Optimisation (ADDT section 5.2 and Algorithm 1)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from adpur.addt.case import Case, Restored, borrowed
from adpur.addt.mapping import RBGM, Mapping
from adpur.addt.perturbation import Mixture, Perturbation, Weight, mixed
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.types import root


class Guide(ABC):
    """What CGPO maximises."""

    @abstractmethod
    def losses(self, case: Case, seen: Restored, eps: Tensor) -> Tensor:
        """One value for each image `(B,)`; `eps` is the Gaussian part of the noise."""


@dataclass(frozen=True)
class Misclassified(Guide):
    """The cross-entropy of the classifier on the one-step image (ADDT Eq. 9)."""

    def losses(self, case: Case, seen: Restored, eps: Tensor) -> Tensor:
        """CE(C(x0_hat), y)."""
        return F.cross_entropy(case.logits(seen.x0), case.y, reduction="none")


@dataclass(frozen=True)
class Misdenoised(Guide):
    """No classifier: the distance of eps_hat to the Gaussian part (ADDT Table 8, MSE guided)."""

    def losses(self, case: Case, seen: Restored, eps: Tensor) -> Tensor:
        """||eps_hat - eps||^2, mean over an image's values."""
        return (case.noise_of(seen) - eps).square().flatten(1).mean(1)


@dataclass(frozen=True)
class CGPO(Perturbation):
    """RBGM-mapped perturbations: eps' = sqrt(1 - lambda_t^2) eps + lambda_t RBGM(delta) (Eq. 6).

    RBGM has no gradient: delta collects the gradient with respect to the mapped tensor, each
    image's own (the mean over a batch of the released code only scales it). `addt_paper` and
    `addt_released` are the two published forms.

    Args:
        steps: iterations, each with fresh eps, one forward and one input-backward of both networks.
        weight: lambda_t.
        mapping: RBGM, or one of the controls.
        guide: what is maximised.
        start: standard deviation of the initial random delta; in the sum it must stay below the
            gradients, which fall from 1e-2 at small t to 1e-6 at t = 0.7 T.
        keep_start: whether the initial delta is part of the sum (Algorithm 1) or only stands in for
            the mapped tensor of the first iteration (released code).
        dropout: whether the denoiser searches in training mode, as the released code does.
    """

    steps: int = 5
    weight: Weight = field(default_factory=Weight)
    mapping: Mapping = field(default_factory=RBGM)
    guide: Guide = field(default_factory=Misclassified)
    start: float = 1e-8
    keep_start: bool = True
    dropout: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"CGPO steps must be a positive integer, got {self.steps}")
        if self.weight.high > 1:
            raise ConfigError(f"lambda is a share of the noise; high={self.weight.high} is over 1")

    def search(self, case: Case, noise: Noise) -> Mixture:
        """See the class; keys: draw k for iteration k, draw 0 for the last mapping."""
        add = self.weight(case.ratio)
        keep = root(1 - add**2)
        delta = self.start * noise.normal(case.x, Stream.OPTIMISE)
        found = delta if self.keep_start else torch.zeros_like(delta)
        losses = []
        with borrowed(case.denoiser, self.dropout):
            for k in range(1, self.steps + 1):
                now = noise.fold(draw=k)
                mapped = self._mapped(delta, now).requires_grad_()
                eps = now.normal(case.x, Stream.FORWARD)
                seen = case.restored(mixed(eps, keep, mapped, add))
                loss = self.guide.losses(case, seen, eps)
                found = found + torch.autograd.grad(loss.sum(), mapped)[0]
                delta = found
                losses.append(loss.detach())
        mapped = self._mapped(found, noise)
        return Mixture(keep, add, mapped, found, torch.stack(losses))

    def _mapped(self, delta: Tensor, noise: Noise) -> Tensor:
        return self.mapping(delta, noise.normal(delta, Stream.ATTACK)).detach()


def addt_paper(
    unit: float = 0.03, high: float = 0.3, low: float = 0.0, steps: int = 5,
    mapping: Mapping | None = None, guide: Guide | None = None,
) -> Perturbation:  # fmt: skip
    """Algorithm 1 as printed: the small random delta is mapped and stays in the sum."""
    return CGPO(steps, Weight(unit, low, high), mapping or RBGM(), guide or Misclassified())


def addt_released(
    unit: float = 0.03, high: float = 0.3, low: float = 0.0, steps: int = 5,
    mapping: Mapping | None = None, guide: Guide | None = None,
) -> Perturbation:  # fmt: skip
    """The released code: the first mapped tensor is Gaussian noise, which the sum leaves out.

    Mapping Gaussian noise gives Gaussian noise, so starting from N(0, 1) is the same in law. What
    the released EDM trainer does besides, leaving classifier gradients on the weights and
    averaging nothing over processes, is not reproduced.
    """
    made, led = mapping or RBGM(), guide or Misclassified()
    return CGPO(steps, Weight(unit, low, high), made, led, start=1.0, keep_start=False)
