"""StAdv: adversarial images made by moving pixels, not by changing them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adpur.attacks.adam import Adam
from adpur.attacks.attack import Attack, check_budget
from adpur.attacks.choice import strongest
from adpur.errors import ConfigError
from adpur.keyed.noise import Stream
from adpur.threat.flow import Flow, furthest, half, pulled, warped
from adpur.threat.losses import Loss, Margin
from adpur.threat.oracle import Oracle
from adpur.types import root


@dataclass(frozen=True)
class StAdv(Attack):
    """StAdv (Xiao et al. 2018) within a bound, on the mean loss over `eot` draws of the defence.

    Adam raises L_adv(x(p + f(p))) - tau L_flow(f) over a flow f that is clamped to eps after every
    step. The paper has L-BFGS and no bound; its line searches want a loss without noise, and the
    bounded variant with Adam is what DiffPure ran and evaluations quote. The loss is not cut off
    where an image is misclassified: against a random defence one draw's success is no success.
    Success or not, of several iterates the one of the highest mean loss over `select` selection
    draws is returned.

    Args:
        eps: largest displacement in shares of half the image (see `Flow`).
        norm: `Flow`; this attack knows no other.
        step_size: Adam's; eps / 5 by default, which is the 0.01 of DiffPure at its eps 0.05.
        steps: iterations.
        tau: weight of the flow's variation; 0 leaves it out.
        eot: draws whose gradients are averaged at each iteration.
        restarts: independent runs: the first as `rest` says, others from random flows.
        candidates: iterates of each run to choose among, evenly spaced, the last of them the last.
        select: selection draws that choose.
        loss: what it raises.
        rest: begin with no flow, as the paper does. Every whole pixel is a kink there, of which a
            gradient sees one side; else begin where the linearised loss is greatest, for one
            gradient more.
    """

    eps: float = 0.05
    norm: Flow = Flow()
    step_size: float | None = None
    steps: int = 100
    tau: float = 0.05
    eot: int = 10
    restarts: int = 1
    candidates: int = 5
    select: int = 10
    loss: Loss = Margin()
    rest: bool = False

    def __post_init__(self) -> None:
        check_budget(self, "steps", "eot", "restarts", "candidates", "select")
        if not isinstance(self.norm, Flow):
            raise ConfigError(f"StAdv moves pixels: expected norm adpur.Flow, got {self.norm}")
        if not self.tau >= 0:
            raise ConfigError(f"StAdv tau must be >= 0 (0 is a free flow), got {self.tau}")

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        oracle = replace(oracle, loss=self.loss)
        runs = (self._kept(oracle.restarted(k), x, k > 0) for k in range(self.restarts))
        kept = (found for run in runs for found in run)
        return strongest(kept, lambda found: oracle.value(found, self.select))

    def _kept(self, oracle: Oracle, x: Tensor, random: bool) -> Iterator[Tensor]:
        """The iterates of one run that may be chosen."""
        wanted = {self.steps * (k + 1) // self.candidates for k in range(self.candidates)}
        step = self.step_size if self.step_size is not None else self.eps / 5
        flow = self._start(oracle, x, random)
        adam = Adam.of(flow)
        for iteration in range(self.steps):
            rise = self._rise(oracle, x, flow, iteration)
            adam = adam.seen(rise, rise * rise)
            flow = (flow + step * adam.direction).clamp(-self.eps, self.eps)
            if iteration + 1 in wanted:
                yield warped(x, flow * half(x))

    def _start(self, oracle: Oracle, x: Tensor, random: bool) -> Tensor:
        """The first flow of a run."""
        none = torch.zeros_like(x[:, :1]).repeat(1, 2, 1, 1)
        if random:
            return self.eps * (2 * oracle.noise.uniform(none, Stream.ATTACK) - 1)
        if self.rest:
            return none
        _, grad = oracle.value_and_grad(x, self.steps, self.eot)
        return furthest(x, grad, self.eps) / half(x)

    def _rise(self, oracle: Oracle, x: Tensor, flow: Tensor, iteration: int) -> Tensor:
        """The gradient in the flow of what is raised."""
        moved = flow * half(x)
        _, grad = oracle.value_and_grad(warped(x, moved), iteration, self.eot)
        rise = pulled(x, moved, grad) * half(x)
        return rise - self.tau * unevenness(flow) if self.tau else rise


def variation(flow: Tensor) -> Tensor:
    """L_flow `(B,)` = sum_p sum_{q in N(p)} |f(p) - f(q)|, N the four neighbours (equation 4)."""
    down, right = (
        root(d[:, 0] * d[:, 0] + d[:, 1] * d[:, 1]).flatten(1).sum(1)
        for d in (flow.diff(dim=2), flow.diff(dim=3))
    )
    return 2 * (down + right)


def unevenness(flow: Tensor) -> Tensor:
    """The gradient of `variation` `(B, 2, H, W)`; 0 where neighbours move alike."""
    with torch.enable_grad():
        at = flow.detach().requires_grad_()
        (grad,) = torch.autograd.grad(variation(at).sum(), at)
    return grad
