"""Subjects with closed forms: a purifier that only adds Gaussian noise, and affine ones."""

import torch
from problems import SHAPE, GaussianDenoiser, LinearClassifier, images
from torch import Tensor, nn

from adpur import PGD, Attack, Defense, Networks, Noise, Purifier, one_shot
from adpur.judging.judge import Draws
from adpur.judging.trial import AttackBlock, Examples
from adpur.papers.revpure.theorem.noisy import CENTRE, Unmoved
from adpur.papers.subject import Subject


def additive(classifier: nn.Module, n: int, sigma: float, count: int, attack: Attack) -> Subject:
    """Grey images `(count, 1, 1, n)` of class 0 under noise `sigma`."""
    purifier = one_shot(2 * sigma, clamp=False)  # diffused on [-1, 1], where lengths double
    defense = Defense(purifier, Networks(classifier, Unmoved(n)), rows=64)
    x = torch.full((count, 1, 1, n), CENTRE, dtype=torch.float64)
    images = Examples(x, torch.zeros(count, dtype=torch.int64), Noise(torch.arange(count)))
    blocks = (AttackBlock("pgd", attack),)
    return Subject("row", defense, Draws(4, 1, True), images, blocks)


class Centred(nn.Module):
    """Three linear logits of x - 1/2: which class an image has is anybody's guess."""

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.linear = SHAPE, LinearClassifier()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x - CENTRE)


def affine(purifier: Purifier, count: int, attack: Attack) -> Subject:
    """A defence affine in x under any noise, of images away from the ends of the range."""
    defense = Defense(purifier, Networks(Centred(), GaussianDenoiser(0.0)), rows=8)
    x = 0.3 + 0.4 * images(count)
    keyed = Examples(x, defense.networks.classifier(x).argmax(1), Noise(torch.arange(count)))
    blocks = (AttackBlock("pgd", attack),)
    return Subject("row", defense, Draws(4, 1, True), keyed, blocks)


def stepwise(steps: int, eps: float = 0.1, eot: int = 2) -> PGD:
    """So small a step that no iterate meets the ball or, from the middle of it, the range."""
    return PGD(eps=eps, step_size=eps / 8, steps=steps, eot=eot)
