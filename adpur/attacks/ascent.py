"""Auto-PGD's ascent (Croce & Hein, ICML 2020, Algorithm 1): momentum, and steps that halve."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.threat.ball import Norm
from adpur.threat.oracle import Look, Oracle, fooled
from adpur.types import expand, ordered_mean, where

MOMENTUM, RHO = 0.75, 0.75


class Point(NamedTuple):
    """B images, their losses `(B,)`, gradients, and how well each fools `(B,)`."""

    x: Tensor
    value: Tensor
    grad: Tensor
    strength: Tensor

    def where(self, rows: Tensor, other: "Point") -> "Point":
        """This point in the rows `(B,)` that are true, the other elsewhere."""
        return Point(*(where(rows, a, b) for a, b in zip(self, other, strict=True)))


Read = Callable[[Tensor, Look, Tensor], Point]
"""`read(x, look, y)`: what the E copies at `x` are taken to say."""


def mean_of_copies(x: Tensor, look: Look, y: Tensor) -> Point:
    """Every copy counts: mean loss, mean gradient, number of wrong copies."""
    return Point(x, ordered_mean(look.loss), ordered_mean(look.grad), fooled(look.logits, y))


Ask = Callable[[Oracle, Tensor, int], Point]
"""`ask(oracle, x, iteration)`: what is found out at x."""


@dataclass(frozen=True)
class Copies:
    """Differentiate E copies and read them."""

    eot: int
    read: Read = mean_of_copies

    def __call__(self, oracle: Oracle, x: Tensor, iteration: int) -> Point:
        """See `Ask`."""
        return self.read(x, oracle.per_draw(x, iteration, self.eot), oracle.y)


class Climbed(NamedTuple):
    """Where a run has been: at the highest loss, where it fooled most, and at last."""

    best: Point
    strongest: Point
    last: Point


@dataclass(frozen=True)
class Ascent:
    """One run of `steps` steps from a uniform point of the ball, 2 eps long at first.

    Each image has its own step size. At a checkpoint it halves, and the image returns to its best
    point, if fewer than rho of the steps since the last one raised the loss, or if neither the step
    size nor the best loss has changed since.

    Args:
        eps: radius.
        norm: of the ball.
        steps: iterations; one gradient more than that is asked for.
        ask: what is found out at each point.
    """

    eps: float
    norm: Norm
    steps: int
    ask: Ask

    def climb(self, oracle: Oracle, x: Tensor) -> Climbed:
        """Raise the oracle's loss around the images `x` `(B, C, H, W)`."""
        now = self.ask(oracle, self.norm.start(x, self.eps, oracle.noise), 0)
        best = strongest = now
        before, control = now.x, Control.of(now, 2 * self.eps)
        for k in range(1, self.steps + 1):
            found = self._moved(x, now, before, control.step, 1.0 if k == 1 else MOMENTUM)
            before, last = now.x, now
            now = self.ask(oracle, found, k)
            best = now.where(now.value > best.value, best)
            strongest = now.where(now.strength >= strongest.strength, strongest)
            control.rises += now.value > last.value
            if (span := checkpoints(self.steps).get(k)) is not None:
                now = best.where(control.checked(best.value, span), now)
        return Climbed(best, strongest, now)

    def _moved(self, x: Tensor, now: Point, before: Tensor, step: Tensor, share: float) -> Tensor:
        ahead = now.x + expand(step, x) * self.norm.direction(now.grad)
        ahead = self.norm.project(ahead, x, self.eps)
        ahead = now.x + share * (ahead - now.x) + (1 - share) * (now.x - before)
        return self.norm.project(ahead, x, self.eps)


@dataclass
class Control:
    """Step sizes of B images, and what decides whether they halve."""

    step: Tensor
    rises: Tensor
    best: Tensor
    halved: Tensor

    @classmethod
    def of(cls, start: Point, step: float) -> "Control":
        """Before the first step."""
        none = torch.zeros_like(start.value, dtype=torch.bool)
        return cls(torch.full_like(start.value, step), none.long(), start.value, ~none)

    def checked(self, best: Tensor, span: int) -> Tensor:
        """Halve where the last `span` steps went badly; those rows `(B,)`."""
        stale = ~self.halved & (best <= self.best)
        self.halved = (self.rises < RHO * span) | stale
        self.step = torch.where(self.halved, self.step / 2, self.step)
        self.rises, self.best = torch.zeros_like(self.rises), best
        return self.halved


def checkpoints(steps: int) -> dict[int, int]:
    """Steps after which step sizes are looked at, and how many steps each look covers.

    Never the last step: there is none after it to change.

    >>> list(checkpoints(100))
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    found: dict[int, int] = {}
    at, span, last = 0.22, 0.22, 0
    while (k := math.ceil(steps * at - 1e-9)) < steps:
        found |= {k: k - last} if k > last else {}
        span = max(span - 0.03, 0.06)
        at, last = at + span, k
    return found
