"""Random noise: what no attack may be weaker than."""

from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.attacks.attack import Attack, check_budget, check_draws
from adpur.attacks.choice import strongest
from adpur.threat.ball import Linf, Norm
from adpur.threat.oracle import Oracle


@dataclass(frozen=True)
class RandomNoise(Attack):
    """The strongest of `points` random perturbations on `draws` selection draws each.

    Carlini et al. (2019) ask for 10,000 points or more where robustness is claimed.

    Args:
        eps: radius in [0, 1] units.
        norm: Linf or L2.
        points: perturbations tried.
        draws: selection draws each is judged by, the same for all.
        boundary: random signs (Linf) or points of the sphere (L2), else uniform in the ball.
    """

    climbs = False

    eps: float = 8 / 255
    norm: Norm = Linf()
    points: int = 100
    draws: int = 10
    boundary: bool = True

    def __post_init__(self) -> None:
        check_budget(self, "points", "draws")
        check_draws(self, self.points)

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        points = (self._point(oracle, x, k) for k in range(self.points))
        return strongest(points, lambda found: oracle.strength(found, self.draws))

    def _point(self, oracle: Oracle, x: Tensor, point: int) -> Tensor:
        noise = oracle.noise.fold(iteration=point)
        if not self.boundary:
            return self.norm.start(x, self.eps, noise)
        grey = torch.full_like(x, 0.5)  # no border of the range cuts this ball
        way = self.norm.direction(self.norm.start(grey, 0.5, noise) - grey)
        return self.norm.project(x + self.eps * way, x, self.eps)
