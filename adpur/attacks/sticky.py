"""BPDA+EOT with the protocol it was published with, and the number that protocol reports."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adpur.attacks.attack import Attack, check_budget
from adpur.threat.ball import Linf, Norm
from adpur.threat.losses import Tangent
from adpur.threat.oracle import Oracle
from adpur.types import ordered_mean


@dataclass(frozen=True)
class StickyPGD(Attack):
    """The BPDA+EOT of Hill et al. (2021), DiffPure and ScoreOpt; its block has `gradient: BPDA`.

    PGD from the clean image on the cross-entropy of the mean logits of `eot` replicates. At each of
    steps + 1 points an image that those replicates get wrong is looked at with `replicates` more;
    if their mean logits are wrong too it is broken, stays broken, and this point is returned.
    What it claims is the share never broken: an ensemble's accuracy, not the defence's, and lower
    for every look taken, without any attack too. The plain attack is `PGD`, which
    `adpur.judging.judge` measures in both cases.

    Args:
        eps: radius in [0, 1] units.
        step_size: per iteration; eps / 4 by default (2/255 at 8/255).
        steps: updates.
        norm: Linf or L2.
        eot: replicates of the attack.
        replicates: replicates of the defence.
    """

    eps: float = 8 / 255
    step_size: float | None = None
    steps: int = 50
    norm: Norm = Linf()
    eot: int = 15
    replicates: int = 150

    def __post_init__(self) -> None:
        check_budget(self, "steps", "eot", "replicates")

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        found, standing = x.clone(), torch.ones_like(oracle.y, dtype=torch.bool)
        for point in range(self.steps + 1):
            rows = standing.nonzero().flatten()
            if not len(rows):
                break
            logits = self._replicates(oracle.at(rows), found[rows], point)
            standing[rows] = ~self._broken(oracle.at(rows), found[rows], logits, point)
            kept = standing[rows]
            if point < self.steps and kept.any():
                rows, logits = rows[kept], logits[kept]
                found[rows] = self._step(oracle.at(rows), x[rows], found[rows], logits, point)
        if oracle.trace is not None:
            oracle.trace.claim(oracle.place, standing.double())
        return found

    def _replicates(self, oracle: Oracle, x: Tensor, point: int) -> Tensor:
        """Mean logits of the copies that the step from here will differentiate."""
        logits = replace(oracle, trace=None).per_draw(x, point, self.eot).logits
        if oracle.trace is not None:
            oracle.trace.value(oracle.place, len(logits))  # only looked at, this time
        return ordered_mean(logits)

    def _broken(self, oracle: Oracle, x: Tensor, logits: Tensor, point: int) -> Tensor:
        """Which images both looks get wrong; only what fails the first has a second."""
        broken = logits.argmax(1) != oracle.y
        rows = broken.nonzero().flatten()
        if len(rows):
            again = oracle.at(rows).answers(x[rows], self.replicates, point)
            broken[rows] = ordered_mean(again).argmax(1) != oracle.y[rows]
        return broken

    def _step(self, oracle: Oracle, x: Tensor, found: Tensor, logits: Tensor, point: int) -> Tensor:
        numbered = torch.arange(len(x), device=oracle.y.device)
        oracle = replace(oracle, y=numbered, loss=Tangent(logits, oracle.y))
        _, grad = oracle.value_and_grad(found, point, self.eot)
        step = self.step_size if self.step_size is not None else self.eps / 4
        return self.norm.project(found + step * self.norm.direction(grad), x, self.eps)
