"""SPSA: gradient ascent on differences of losses."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from adpur.attacks.adam import Adam
from adpur.attacks.attack import Attack, check_budget, check_draws
from adpur.errors import ConfigError
from adpur.keyed.noise import Stream
from adpur.threat.ball import Linf, Norm
from adpur.threat.losses import Loss, Margin
from adpur.threat.oracle import Oracle


@dataclass(frozen=True)
class SPSA(Attack):
    """SPSA (Uesato et al. 2018): Adam on estimates (f(x + delta v) - f(x - delta v)) / (2 delta v).

    Every image has its own directions v of random signs, every direction its own K draws of the
    defence; x +- delta v is kept in [0, 1]. The last iterate is returned. An iteration costs
    2 samples draws forwards an image.

    Args:
        eps: radius in [0, 1] units.
        step_size: Adam's, per pixel.
        steps: iterations.
        norm: Linf, or L2, where Adam's second moment is the image's mean.
        samples: directions of each estimate.
        draws: K, selection draws of each difference.
        delta: how far the two sides are from the image.
        paired: both sides share their noise. Without, as in other libraries, the difference
            is mostly noise: the direction's cosine to the true gradient is near 0.
        loss: what it raises.
    """

    climbs = False

    eps: float = 8 / 255
    step_size: float = 0.01
    steps: int = 100
    norm: Norm = Linf()
    samples: int = 128
    draws: int = 1
    delta: float = 0.01
    paired: bool = True
    loss: Loss = Margin()

    def __post_init__(self) -> None:
        check_budget(self, "steps", "samples", "draws")
        check_draws(self, self.steps * self.samples * (1 if self.paired else 2))
        if not self.delta > 0:
            raise ConfigError(f"SPSA delta must be positive, got {self.delta}")

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        oracle, found, adam = replace(oracle, loss=self.loss), x, Adam.of(x)
        for step in range(self.steps):
            grad = self.estimate(oracle, found, step)
            adam = adam.seen(grad, self.norm.moment(grad))
            found = self.norm.project(found + self.step_size * adam.direction, x, self.eps)
        return found

    def estimate(self, oracle: Oracle, x: Tensor, step: int = 0) -> Tensor:
        """The estimated gradient of the oracle's loss `(B, C, H, W)` at one iteration."""
        total = torch.zeros_like(x)
        for sample in range(step * self.samples, (step + 1) * self.samples):
            total = total + self._along(oracle, x, sample)
        return total / self.samples

    def _along(self, oracle: Oracle, x: Tensor, sample: int) -> Tensor:
        """The estimate from one direction."""
        u = oracle.noise.fold(iteration=sample).uniform(x, Stream.ATTACK)
        way = torch.where(u < 0.5, -self.delta, self.delta).to(x)
        up, down = (x + way).clamp(0, 1), (x - way).clamp(0, 1)
        gain = self._gain(oracle, up, down, sample)
        return gain.to(x).view(-1, 1, 1, 1) / (up - down)

    def _gain(self, oracle: Oracle, up: Tensor, down: Tensor, sample: int) -> Tensor:
        """f(up) - f(down) `(B,)`; in one call where they share their draws."""
        if not self.paired:
            sides = (oracle.value(v, self.draws, 2 * sample + k) for k, v in enumerate((up, down)))
            above, below = sides
        else:
            rows = torch.arange(len(up), device=up.device).repeat(2)
            value = oracle.at(rows).value(torch.cat((up, down)), self.draws, sample)
            above, below = value.chunk(2)
        return above - below


def spsa_1280(eps: float = 8 / 255, norm: Norm = Linf()) -> SPSA:
    """SPSA with 1,280 queries an image: 10 steps of 64 directions, two sides each.

    The budget of ScoreOpt's query attack; how it is spread over steps is not published there.
    """
    return SPSA(eps, steps=10, norm=norm, samples=64)
