"""Subjects whose purifier only adds Gaussian noise: closed forms of attacks on a random defence."""

import torch
from torch import nn

from adpur import PGD, Attack, Defense, Networks, Noise, one_shot
from adpur.analyse.noisy import CENTRE, Unmoved
from adpur.analyse.subject import Images, Subject
from adpur.judge import Bench
from adpur.trial import Block, Trial


def additive(classifier: nn.Module, n: int, sigma: float, count: int, attack: Attack) -> Subject:
    """Grey images `(count, 1, 1, n)` of class 0 under noise `sigma`."""
    purifier = one_shot(2 * sigma, clamp=False)  # diffused on [-1, 1], where lengths double
    defense = Defense(purifier, Networks(classifier, Unmoved(n)), rows=64)
    x = torch.full((count, 1, 1, n), CENTRE, dtype=torch.float64)
    images = Images(x, torch.zeros(count, dtype=torch.int64), Noise(torch.arange(count)))
    blocks = (Block("row", "pgd", Trial(defense, attack), (attack.eps,)),)
    return Subject("row", defense, Bench(4, 1, True), images, blocks)


def stepwise(steps: int, eps: float = 0.1, eot: int = 2) -> PGD:
    """So small a step that no iterate meets the ball or, from the middle of it, the range."""
    return PGD(eps=eps, step_size=eps / 8, steps=steps, eot=eot)
