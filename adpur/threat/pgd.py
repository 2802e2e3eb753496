"""Projected gradient descent with expectation over transformation."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adpur.threat.attack import Attack, Target, check_budget
from adpur.threat.ball import Linf, Norm
from adpur.threat.losses import CrossEntropy, Loss
from adpur.threat.oracle import Oracle
from adpur.types import expand


@dataclass(frozen=True)
class PGD(Attack):
    """PGD (Madry et al. 2018) on the mean loss over `eot` draws of the defence.

    The last iterate of each restart is kept; of several restarts, the one with the highest mean
    loss on `select` selection draws. Nothing is decided on one draw, and no image is skipped.

    Args:
        eps: radius in [0, 1] units.
        step_size: per iteration; 2.5 eps / steps by default.
        steps: iterations.
        norm: Linf (sign steps) or L2 (normalised steps).
        eot: draws whose gradients are averaged at each iteration.
        random_start: begin at a uniform point of the ball, else at the clean image.
        restarts: independent runs.
        select: selection draws that decide between restarts.
        target: the class to aim at; untargeted by default.
        loss: what it raises.
    """

    eps: float = 8 / 255
    step_size: float | None = None
    steps: int = 20
    norm: Norm = Linf()
    eot: int = 10
    random_start: bool = True
    restarts: int = 1
    select: int = 10
    target: Target | None = None
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        check_budget(self, "steps", "eot", "restarts", "select")

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        oracle = replace(oracle, loss=self.loss)
        if self.target is not None:
            oracle = oracle.towards(self.target.labels(oracle, x))
        best = self._once(oracle, x)
        if self.restarts == 1:
            return best
        best_value = oracle.value(best, self.select)
        for restart in range(1, self.restarts):
            found = self._once(oracle.restarted(restart), x)
            value = oracle.value(found, self.select)
            best = torch.where(expand(value > best_value, x).bool(), found, best)
            best_value = torch.maximum(value, best_value)
        return best

    def _once(self, oracle: Oracle, x: Tensor) -> Tensor:
        step = self.step_size if self.step_size is not None else 2.5 * self.eps / self.steps
        found = self.norm.start(x, self.eps, oracle.noise) if self.random_start else x
        for iteration in range(self.steps):
            _, grad = oracle.value_and_grad(found, iteration, self.eot)
            found = self.norm.project(found + step * self.norm.direction(grad), x, self.eps)
        return found
