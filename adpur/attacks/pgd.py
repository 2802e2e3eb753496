"""Projected gradient descent with expectation over transformation."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adpur.attacks.attack import Attack, Target, check_budget
from adpur.attacks.choice import Best
from adpur.attacks.decay import Decay, FixedStep
from adpur.errors import ConfigError
from adpur.threat.ball import Linf, Norm
from adpur.threat.losses import CrossEntropy, Loss, Tangent
from adpur.threat.oracle import Oracle
from adpur.types import ordered_mean


@dataclass(frozen=True)
class PGD(Attack):
    """PGD (Madry et al. 2018) on the mean loss over `eot` draws of the defence.

    The last iterate is kept, or the best of several. Whatever there is to choose, among iterates or
    restarts, is chosen by the mean loss over `select` selection draws, the same for all: nothing
    is decided on one draw or on those of the attack. No image is skipped.

    Args:
        eps: radius in [0, 1] units.
        step_size: of the first iteration; 2.5 eps / steps by default.
        steps: iterations.
        norm: Linf (sign steps) or L2 (normalised steps).
        eot: draws whose gradients are averaged at each iteration.
        random_start: begin at a uniform point of the ball, else at the clean image.
        restarts: independent runs.
        select: selection draws that choose.
        target: the class to aim at; untargeted by default.
        loss: what it raises.
        candidates: iterates of each restart to choose among, evenly spaced, the last of them the
            last. 1 keeps the last, as Lee & Kim and ADDT do; each more costs `select` forwards.
        decay: how the step size falls.
        sign_step: step along the sign of the gradient in any norm. What the code of Lee & Kim and
            of SSNI does in L2: a weaker attack, here to repeat their numbers.
        mean_logits: raise the cross-entropy of the mean logits of the copies, as ScoreOpt's code
            and BPDA+EOT's does, not their mean cross-entropy. An iteration then costs twice as
            much: the copies are looked at once for their logits, and once for their gradients.
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
    candidates: int = 1
    decay: Decay = FixedStep()
    sign_step: bool = False
    mean_logits: bool = False

    def __post_init__(self) -> None:
        check_budget(self, "steps", "eot", "restarts", "select", "candidates")
        if self.mean_logits and not isinstance(self.loss, CrossEntropy):
            raise ConfigError(
                f"PGD mean_logits is a cross-entropy of mean logits, got loss {self.loss}; leave "
                "one of the two out"
            )
        if self.candidates > self.steps:
            raise ConfigError(
                f"PGD candidates must be at most its {self.steps} steps, got {self.candidates}"
            )

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        oracle = replace(oracle, loss=self.loss)
        if self.target is not None:
            oracle = oracle.towards(self.target.labels(oracle, x))
        best = Best(lambda x_adv: oracle.value(x_adv, self.select))
        for run in (oracle, *map(oracle.restarted, range(1, self.restarts))):
            for x_adv in self._iterates(run, x):
                best.offer(x_adv)
        return best.image

    def _iterates(self, oracle: Oracle, x: Tensor) -> Iterator[Tensor]:
        """The iterates of one restart that may be chosen."""
        wanted = {self.steps * (k + 1) // self.candidates for k in range(self.candidates)}
        step = self.step_size if self.step_size is not None else 2.5 * self.eps / self.steps
        direction = Linf().direction if self.sign_step else self.norm.direction
        x_adv = self.norm.start(x, self.eps, oracle.noise) if self.random_start else x
        for iteration in range(self.steps):
            asked = joint(oracle, x_adv, iteration, self.eot) if self.mean_logits else oracle
            _, grad = asked.value_and_grad(x_adv, iteration, self.eot)
            moved = x_adv + step * self.decay.share(iteration, self.steps) * direction(grad)
            x_adv = self.norm.project(moved, x, self.eps)
            if iteration + 1 in wanted:
                yield x_adv


def joint(oracle: Oracle, x: Tensor, iteration: int, eot: int) -> Oracle:
    """The oracle whose mean over the copies at `x` is the cross-entropy of their mean logits."""
    logits = replace(oracle, trace=None).per_draw(x, iteration, eot).logits
    if oracle.trace is not None:
        oracle.trace.value(oracle.place, len(logits))  # only looked at, this time
    numbered = torch.arange(len(x), device=oracle.y.device)
    aimed = oracle.target is not None
    label = oracle.target if oracle.target is not None else oracle.y
    tangent = Tangent(ordered_mean(logits), label, -1 if aimed else 1)
    return replace(oracle, y=numbered, target=None, loss=tangent)


def fgsm(eps: float = 8 / 255, norm: Norm = Linf(), eot: int = 10) -> PGD:
    """FGSM (Goodfellow et al. 2015): one step of the whole radius from the clean image."""
    return PGD(eps, steps=1, norm=norm, eot=eot, random_start=False)
