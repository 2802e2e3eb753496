"""Square: random search with localised squares, without gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.attacks.attack import Attack, check_budget, check_draws
from adpur.errors import ConfigError
from adpur.threat.ball import Linf, Norm
from adpur.threat.losses import Loss, Margin
from adpur.threat.oracle import Oracle
from adpur.types import ordered_mean, where

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations after which the painted share of the image is halved (AutoAttack's, not rescaled)."""


@dataclass(frozen=True)
class Square(Attack):
    """Square (Andriushchenko et al. 2020) on the mean loss over `draws` draws of the defence.

    A square is accepted where it raises the mean loss on draws that the image so far is measured
    on too; each iteration has new ones, so that no lucky draw is ever kept (issue 56 of AutoAttack
    asks for this). A random defence costs 2 draws forwards an iteration, and no image stops early.
    A deterministic one costs one: its loss is remembered, and an image it gets wrong is finished.

    Args:
        eps: radius in [0, 1] units.
        norm: Linf or L2.
        steps: images tried, the first included.
        draws: K, selection draws of each comparison.
        p_init: share of the pixels the first squares cover.
        loss: what it raises.
    """

    climbs = False

    eps: float = 8 / 255
    norm: Norm = Linf()
    steps: int = 5000
    draws: int = 20
    p_init: float = 0.8
    loss: Loss = Margin()

    def __post_init__(self) -> None:
        check_budget(self, "steps", "draws")
        check_draws(self, self.steps)
        if not 0 < self.p_init <= 1:
            raise ConfigError(f"Square p_init must be in (0, 1], got {self.p_init}")

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        patches = self.norm.patches()
        found = self.norm.project(patches.start(x, self.eps, oracle.noise), x, self.eps)
        if self._same_draws(oracle):
            return self._remembering(oracle, x, found)
        for step in range(1, self.steps):
            moved = self._moved(oracle, x, found, step)
            before, after = (self._look(oracle, v, step)[0] for v in (found, moved))
            found = where(after > before, moved, found)
        return found

    def _remembering(self, oracle: Oracle, x: Tensor, found: Tensor) -> Tensor:
        """The search where a loss once measured stays true."""
        value, wrong = self._look(oracle, found, 0)
        for step in range(1, self.steps):
            rows = (~wrong).nonzero().flatten()
            if not len(rows):
                break
            moved = self._moved(oracle.at(rows), x[rows], found[rows], step)
            after, done = self._look(oracle.at(rows), moved, step)
            better = (after > value[rows]) | done
            found[rows] = where(better, moved, found[rows])
            value[rows] = torch.where(better, after, value[rows])
            wrong[rows] = done
        return found

    def _moved(self, oracle: Oracle, x: Tensor, found: Tensor, step: int) -> Tensor:
        side = self.side(step, *x.shape[2:])
        noise = oracle.noise.fold(iteration=step)
        moved = self.norm.patches().move(found, x, self.eps, side, noise)
        return self.norm.project(moved, x, self.eps)

    def side(self, step: int, height: int, width: int) -> int:
        """Pixels along a square at an iteration.

        >>> [Square().side(k, 32, 32) for k in (1, 11, 51, 4999)]
        [29, 20, 14, 3]
        """
        share = self.p_init / 2 ** sum(step > k for k in HALVINGS)
        return min(max(1, round((share * height * width) ** 0.5)), height, width)

    def _look(self, oracle: Oracle, x: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Mean losses `(B,)`, and which images are wrong on every draw."""
        logits = oracle.answers(x, self.draws, step)
        loss = self.loss.loss(logits.flatten(0, 1), oracle.y.repeat(len(logits)))
        wrong = (logits.argmax(2) != oracle.y).all(0)
        return ordered_mean(loss.view(len(logits), -1)), wrong

    def _same_draws(self, oracle: Oracle) -> bool:
        """Whether every iteration sees the same draws, so that nothing is left to luck."""
        return not oracle.random or oracle.knowledge.draws(self.draws + 1) <= self.draws
