"""Which draws of a defence one perturbation can break together (DiffHammer's expectation step)."""

from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.threat.ball import Norm

SHARPNESS = 5.0
"""lambda of the sigmoid, as released; the paper asks for any increasing function."""


class Chosen(NamedTuple):
    """Weights of E draws `(E, B)`, which sum to 1, the most representative draw `(B,)`, and the
    weighted gradient `(B, C, H, W)`.
    """

    weight: Tensor
    draw: Tensor
    grad: Tensor


@dataclass(frozen=True)
class Together:
    """The EM selection of DiffHammer (Wang et al. 2024, Eq. 9 to 11), from losses and gradients.

    The most representative draw is the a that maximises sum_i elu(L_i + eps <u(g_a), g_i>), with
    u(g) the steepest direction of the norm. From r = g_a, each round has the weights
    w_i = sigmoid(5 (L_i + ahead <u(r), g_i>)) and the next r = sum_i w_i g_i / sum_i w_i.

    Where the paper and the released code differ: Eq. 11 has the sigmoid where the code has elu,
    which is taken; Eq. 9 looks no further ahead than the ball, where the code takes a unit step
    whatever eps is (`ahead`: 1 there, eps in the paper); the code's loop never feeds r back, so
    that its 5 rounds are what 1 is here.

    Args:
        norm: of the ball.
        eps: its radius.
        ahead: length of the move under which the draws are weighed.
        rounds: of the fixed-point iteration.
    """

    norm: Norm
    eps: float
    ahead: float
    rounds: int

    def __call__(self, loss: Tensor, grad: Tensor) -> Chosen:
        """Select among losses `(E, B)` with gradients `(E, B, C, H, W)`."""
        draw = self.representative(loss, grad)
        found = grad[draw, torch.arange(len(draw), device=draw.device)]
        for _ in range(self.rounds):
            weight = self.weights(loss, grad, found)
            found = _sum(weight.to(grad).view(*weight.shape, 1, 1, 1) * grad)
        return Chosen(weight, draw, found)

    def representative(self, loss: Tensor, grad: Tensor) -> Tensor:
        """The draw `(B,)` whose own step raises all losses most; of equals the first."""
        gains = (_sum(_elu(loss.double() + self._gain(g, grad, self.eps))) for g in grad)
        return torch.stack(list(gains)).argmax(0)

    def weights(self, loss: Tensor, grad: Tensor, towards: Tensor) -> Tensor:
        """The weights fp64 `(E, B)` of the draws after a step along `towards` `(B, C, H, W)`."""
        ahead = SHARPNESS * (loss.double() + self._gain(towards, grad, self.ahead))
        log = -_softplus(-ahead)  # a sigmoid may underflow in all draws, its logarithm does not
        weight = (log - log.amax(0)).exp()
        return weight / _sum(weight)

    def _gain(self, towards: Tensor, grad: Tensor, length: float) -> Tensor:
        """What a step of that length adds to each draw's loss at first order, fp64 `(E, B)`."""
        unit = self.norm.direction(towards).double()
        return length * (unit * grad.double()).flatten(2).sum(2)


def softplus(loss: Tensor) -> Tensor:
    """log(1 + exp(5 loss)) / 5, fp64: the loss where it is above 0, next to nothing below."""
    return _softplus(SHARPNESS * loss.double()) / SHARPNESS


def _softplus(v: Tensor) -> Tensor:
    # written out: the last bit of torch's own depends on where in a tensor a row stands
    small = (-v.abs()).exp()
    return v.clamp_min(0) + torch.where(small < 1e-8, small, (1 + small).log())


def _elu(v: Tensor) -> Tensor:
    return torch.where(v > 0, v, v.clamp_max(0).exp() - 1)


def _sum(v: Tensor) -> Tensor:
    return reduce(torch.add, v.unbind())
