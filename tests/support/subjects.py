"""Subjects of analyses on closed-form problems."""

import torch
from problems import images, networks

from adpur import PGD, Attack, Defense, Exact, GradientMode, Knowledge, Noise, Purifier
from adpur.diffusion.denoiser import Denoiser
from adpur.judging.judge import Draws
from adpur.judging.trial import AttackBlock, Examples
from adpur.papers.subject import Subject


def subject(
    purifier: Purifier,
    count: int = 6,
    attack: Attack | None = None,
    gradient: GradientMode = Exact(),
    knowledge: Knowledge = Knowledge(),
    denoiser: Denoiser | None = None,
    dtype: torch.dtype = torch.float64,
    row: str = "row",
) -> Subject:
    """A purifier over the wavy denoiser and the linear classifier, right on all its images."""
    defense = Defense(purifier, networks(denoiser), rows=8)
    x = images(count, dtype)
    y = defense.networks.classifier(x).argmax(1)
    search = attack if attack is not None else PGD(eps=0.1, steps=2, eot=2)
    block = AttackBlock("pgd", search, gradient, knowledge)
    return Subject(
        row, defense, Draws(4, 1, True), Examples(x, y, Noise(torch.arange(count))), (block,)
    )
