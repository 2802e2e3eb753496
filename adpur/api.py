"""`adpur.evaluate`: the accuracy of a classifier or a defence on tensors, by the one judge."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from adpur.addt.case import borrowed
from adpur.attacks.attack import Attack
from adpur.defense.defense import ROWS, Defense
from adpur.defense.gradient import Exact, GradientMode
from adpur.errors import ConfigError
from adpur.judging.judge import Draws, judge
from adpur.judging.scoreboard import Outcome
from adpur.judging.trial import AttackBlock, Examples, Trial
from adpur.keyed.noise import Noise
from adpur.models.keyed import Keyed, Seeded
from adpur.models.networks import Networks
from adpur.purify.base import Identity
from adpur.threat.knowledge import Knowledge

AT_ONCE = 64
"""Images judged at a time: a bound on memory, which changes no bit."""


def evaluate(
    model: nn.Module | Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    attack: Attack | None = None,
    eps: float | None = None,
    *,
    gradient: GradientMode = Exact(),
    knowledge: Knowledge = Knowledge(),
    draws: int = 10,
    select: int = 10,
    rows: int = ROWS,
    seed: int = 0,
    index: Tensor | None = None,
) -> Outcome:
    """The accuracy of `model` on `x`, clean or under an attack, as `adpur test` measures it.

    Every image is attacked; what the attack returns is projected onto its ball and predicted again
    on `draws` fresh draws, whatever the attack says of itself. The same arguments give the same
    bits, and those of a run of `adpur test` with this row, this block and these dataset rows.

    Args:
        model: a `Defense`; or any classifier, random or not, from [0, 1] images to logits, as in
            `adpur audit`. Classifiers are evaluated in evaluation mode and left as they were.
        x: images `(B, C, H, W)` in [0, 1].
        y: labels `(B,)`.
        attack: what looks for adversarial images; the clean images by default.
        eps: its radius in [0, 1] units, in place of the attack's own.
        gradient: the purifier the attacker differentiates.
        knowledge: which evaluation noise the attacker knows.
        draws: N, evaluation draws an image.
        select: selection draws, which rank attacks against each other (`Outcome.union`).
        rows: R of every call of a classifier; a `Defense` has its own.
        seed: of every key.
        index: dataset rows `(B,)` of the images, which key their noise; 0..B-1 by default.

    >>> from adpur import PGD
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> with torch.no_grad():  # class 0 where the mean of the four pixels is above 1/2
    ...     net[1].weight[:] = torch.tensor([[1.0], [-1.0]])
    ...     net[1].bias[:] = torch.tensor([-2.0, 2.0])
    >>> x, y = torch.full((3, 1, 2, 2), 0.55), torch.zeros(3, dtype=torch.int64)
    >>> x[2] = 0.9  # the others are within 0.1 of the boundary
    >>> evaluate(net, x, y).summary()["acc"]
    1.0
    >>> round(evaluate(net, x, y, PGD(steps=5), eps=0.1).summary()["acc"], 2)
    0.33
    """
    index = index if index is not None else torch.arange(len(x))
    if not len(x) == len(y) == _distinct(index) or not len(x):
        raise ConfigError(
            f"expected a label and a dataset row of its own for each image, and at least one; got "
            f"{len(x)} images, {len(y)} labels and {_distinct(index)} rows"
        )
    if attack is None and eps is not None:
        raise ConfigError(f"expected an attack with eps {eps:g}, got None; leave eps out")
    with _defended(model, rows) as defense, torch.inference_mode(False):
        x, y = x.detach().clone(), y.to(x.device, torch.int64).clone()
        images = Examples(x, y, Noise(index.to(x.device), seed))
        _labelled(defense, images)
        asked = Draws(draws, select, defense.random(x))
        trial = _trial(defense, attack, eps, gradient, knowledge, asked.random)
        parts = (images.rows(slice(k, k + AT_ONCE)) for k in range(0, len(x), AT_ONCE))
        judged = [judge(defense, part, asked, trial) for part in parts]
    return Outcome.of(score for verdict in judged for score in verdict.scores)


def _trial(
    defense: Defense, attack: Attack | None, eps: float | None, gradient: GradientMode,
    knowledge: Knowledge, random: bool,
) -> Trial:  # fmt: skip
    if attack is None:
        return Trial(defense, knowledge=knowledge)
    radius = float(eps if eps is not None else attack.eps)
    block = AttackBlock("evaluate", attack, gradient, knowledge, (radius,))
    block.check("evaluate", defense)
    return block.trial(defense, radius, random)


@torch.no_grad()
def _labelled(defense: Defense, images: Examples) -> None:
    """Refuse images the defence cannot take, and labels that it has no logit for."""
    defense.validated(images.x)
    one = images.first(1)
    classes = defense(one.x, one.noise).logits.shape[1]
    low, high = int(images.y.min()), int(images.y.max())
    if low < 0 or high >= classes:
        raise ConfigError(f"expected labels in 0..{classes - 1}, got {low}..{high}")


@contextmanager
def _defended(model: nn.Module | Callable[[Tensor], Tensor], rows: int) -> Iterator[Defense]:
    """The model as a defence; a classifier's mode and frozen weights are given back."""
    if isinstance(model, Defense):
        yield model
        return
    net = model if isinstance(model, nn.Module) else _Function(model)
    with borrowed(net, train=False):
        keyed = net if isinstance(net, Keyed) else Seeded(net, getattr(net, "shape", None))
        yield Defense(Identity(), Networks(keyed), rows)


def _distinct(index: Tensor) -> int:
    return len(set(index.tolist()))


class _Function(nn.Module):
    """A function from images to logits."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)
