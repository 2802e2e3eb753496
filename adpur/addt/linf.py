"""Perturbed training images: adversarial training, and ADDT's Linf variant of appendix H."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adpur.addt.case import Case, borrowed
from adpur.addt.perturbation import Mixture, Perturbation, Weight, mixed
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.threat.ball import Linf, Norm

Losses = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True)
class ImagePGD:
    """Gradient ascent in a ball, the images kept in [0, 1] (Madry et al. 2018).

    Args:
        eps: in units of [0, 1] images.
        norm: of the ball, and of the steps: signs (Linf) or normalised gradients (L2).
        step_size: likewise; eps / 2 by default.
        steps: iterations.
        random_start: from a uniform point of the ball, or from the image itself.
    """

    eps: float = 8 / 255
    step_size: float | None = None
    steps: int = 5
    random_start: bool = False
    norm: Norm = Linf()

    def __post_init__(self) -> None:
        if not (self.eps > 0 and self._step > 0 and self.steps > 0):
            raise ConfigError(f"eps, step_size and steps must be positive, got {self}")

    def search(self, x: Tensor, losses: Losses, noise: Noise) -> tuple[Tensor, Tensor]:
        """The perturbation of `x` `(B, C, H, W)`, and the losses met, `(steps, B)`.

        `losses(x_adv, k)` gives iteration k's loss for each image, k from 1.
        """
        found, met = self.norm.start(x, self.eps, noise) if self.random_start else x, []
        for k in range(1, self.steps + 1):
            found = found.detach().requires_grad_()
            loss = losses(found, k)
            grad = torch.autograd.grad(loss.sum(), found)[0]
            moved = found.detach() + self._step * self.norm.direction(grad)
            found = self.norm.project(moved, x, self.eps)
            met.append(loss.detach())
        return found - x, torch.stack(met)

    def against(self, classifier: nn.Module, x: Tensor, y: Tensor, noise: Noise) -> Tensor:
        """Images that fool `classifier`, which is in evaluation mode meanwhile (as in TRADES)."""

        def losses(x_adv: Tensor, k: int) -> Tensor:
            return F.cross_entropy(classifier(x_adv), y, reduction="none")

        with borrowed(classifier, train=False):
            return x + self.search(x, losses, noise)[0]

    @property
    def _step(self) -> float:
        return self.eps / 2 if self.step_size is None else self.step_size


@dataclass(frozen=True)
class LinfNoise(Perturbation):
    """ADDT_Linf (appendix H): eps' = eps + weight(gamma_t) delta, delta an Linf perturbation.

    With weight = gamma_t the diffused image is that of x_0 + delta. Each iteration has fresh eps;
    gradients are not accumulated.

    Args:
        pgd: the search, in units of [0, 1] images; delta is in those of [-1, 1].
        weight: clip(gamma_t, 0, 10).
        dropout: see `CGPO`.
    """

    pgd: ImagePGD = field(default_factory=ImagePGD)
    weight: Weight = field(default_factory=lambda: Weight(1.0, 0.0, 10.0))
    dropout: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.pgd.norm, Linf):
            raise ConfigError(f"LinfNoise wants pgd with norm: adpur.Linf, got {self.pgd.norm}")

    def search(self, case: Case, noise: Noise) -> Mixture:
        """See the class."""
        add = self.weight(case.ratio)
        keep, image = torch.ones_like(add), case.image

        def losses(x_adv: Tensor, k: int) -> Tensor:
            eps = noise.fold(draw=k).normal(case.x, Stream.FORWARD)
            seen = case.restored(mixed(eps, keep, 2 * (x_adv - image), add))
            return F.cross_entropy(case.logits(seen.x0), case.y, reduction="none")

        with borrowed(case.denoiser, self.dropout):
            delta, met = self.pgd.search(image, losses, noise)
        return Mixture(keep, add, 2 * delta, 2 * delta, met)
