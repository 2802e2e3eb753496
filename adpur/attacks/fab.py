"""FAB, the fast adaptive boundary attack, targeted."""

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from adpur.attacks.apgd import likely_wrong
from adpur.attacks.attack import Attack, check_budget
from adpur.attacks.choice import strongest_found
from adpur.errors import ConfigError
from adpur.threat.ball import L2, Linf, Norm
from adpur.threat.losses import Margin
from adpur.threat.oracle import Oracle
from adpur.types import expand, where


@dataclass(frozen=True)
class FAB(Attack):
    """FAB-T (Croce & Hein, "Minimally distorted adversarial examples", ICML 2020), Algorithm 1.

    It seeks the nearest misclassified image: steps onto the linearised boundary z_t = z_y from the
    iterate and, in a share alpha, from the clean image; each misclassified iterate is drawn back
    towards the clean one. For deterministic defences: one draw beyond a boundary says nothing of
    the others. Where nothing was found within eps, the nearest misclassified image, or else the
    last iterate, is projected onto the ball.

    Args:
        eps: radius in [0, 1] units.
        norm: Linf or L2.
        steps: iterations against each class; each costs a gradient and a prediction.
        targets: how many of the most likely wrong classes are aimed at, in turn.
        alpha: the largest share of the clean image's own step.
        overshoot: eta, how far beyond the boundary a step ends, times its length.
        back: beta, the share of its distance that a misclassified iterate keeps.
    """

    eps: float = 8 / 255
    norm: Norm = Linf()
    steps: int = 100
    targets: int = 9
    alpha: float = 0.1
    overshoot: float = 1.05
    back: float = 0.9

    def __post_init__(self) -> None:
        check_budget(self, "steps", "targets")

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        if oracle.random:
            raise ConfigError("FAB is for deterministic defences, got a random one; use adpur.rand")
        oracle = replace(oracle, loss=Margin())
        aims = likely_wrong(oracle, x, self.targets, 1)
        return strongest_found(oracle, x, ((oracle.towards(t), self._once) for t in aims), 1)

    def _once(self, oracle: Oracle, x: Tensor) -> Tensor:
        now, nearest, size = x, x, torch.full_like(x.flatten(1)[:, 0], torch.inf).double()
        for k in range(self.steps):
            now = self._stepped(oracle, x, now, k)
            wrong = oracle.answers(now, 1)[0].argmax(1) != oracle.y
            nearer = wrong & (self.norm.size(now - x) < size)
            nearest = where(nearer, now, nearest)
            size = torch.where(nearer, self.norm.size(now - x), size)
            now = where(wrong, x + self.back * (now - x), now)
        found = where(size.isfinite(), nearest, now)
        return self.norm.project(found, x, self.eps)

    def _stepped(self, oracle: Oracle, x: Tensor, now: Tensor, iteration: int) -> Tensor:
        value, grad = oracle.value_and_grad(now, iteration)
        onto = partial(to_boundary, value=value, grad=grad, at=now, norm=self.norm)
        own, clean = onto(now), onto(x)
        lengths = self.norm.size(own), self.norm.size(clean)
        share = lengths[0] / (lengths[0] + lengths[1]).clamp_min(1e-30)
        share = expand(share.clamp(max=self.alpha), x)
        ahead = (1 - share) * (now + self.overshoot * own) + share * (x + self.overshoot * clean)
        return ahead.clamp(0, 1)


def to_boundary(x: Tensor, value: Tensor, grad: Tensor, at: Tensor, norm: Norm) -> Tensor:
    """The shortest step `(B, C, H, W)` within [0, 1] from `x` to value + <grad, z - at> = 0.

    A coordinate moves by min(lambda u, room), u = 1 in Linf and |grad| in L2, where lambda solves
    sum |grad| min(lambda u, room) = gap: linear between sorted kinks, hence exact. Where the box
    does not reach the plane, every coordinate goes to its bound. In fp64.
    """
    w, start = grad.double().flatten(1), x.double().flatten(1)
    gap = -(value.double() + (w * (start - at.double().flatten(1))).sum(1))
    way = w.sign() * gap.sign().view(-1, 1)
    room = torch.where(way > 0, 1 - start, torch.where(way < 0, start, 0.0))
    speed = _speed(norm, w)
    scale = _reach(w.abs(), speed, room, gap.abs())
    return (way * torch.minimum(scale.view(-1, 1) * speed, room)).view_as(x).to(x)


def _speed(norm: Norm, w: Tensor) -> Tensor:
    """How coordinates of a shortest step grow together."""
    match norm:
        case Linf():
            return torch.ones_like(w)
        case L2():
            return w.abs()
    raise ConfigError(f"FAB norm must be adpur.Linf or adpur.L2, got {norm}")


def _reach(weight: Tensor, speed: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Lambda `(B,)` at which sum weight min(lambda speed, room) is `gap`, or the last kink."""
    kink, order = torch.where(speed > 0, room / speed.clamp_min(1e-300), 0.0).sort(1)
    most = (weight * room).gather(1, order)
    before = most.cumsum(1) - most  # of the coordinates that have stopped earlier
    slope = (weight * speed).gather(1, order).flip(1).cumsum(1).flip(1)
    short = before + slope * kink < gap.view(-1, 1)
    at = short.sum(1, keepdim=True).clamp(max=kink.shape[1] - 1)
    exact = (gap.view(-1, 1) - before.gather(1, at)) / slope.gather(1, at).clamp_min(1e-300)
    return torch.minimum(exact, kink.gather(1, at)).squeeze(1)
