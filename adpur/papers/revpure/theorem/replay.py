"""RevPure's Theorem 1 and Corollary 2.1, measured on the code that evaluates real defences.

A classifier F behind additive Gaussian noise P (equation 4): an image is fooled when F is wrong
at x + eta. Lengths are in units of sigma. `python -m adpur.papers.revpure.theorem`
prints the table; `--out FOLDER` draws it over the dimension.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import nn

from adpur.attacks.attack import Attack
from adpur.attacks.pgd import PGD
from adpur.defense.defense import Defense
from adpur.errors import ConfigError
from adpur.judging.judge import Draws, judge
from adpur.judging.statistics import Estimate, mean_accuracy
from adpur.judging.trial import Examples, Trial
from adpur.keyed.noise import Noise
from adpur.models.networks import Networks
from adpur.papers.revpure.theorem.noisy import CENTRE, Ball, HalfSpace, Newton, Unmoved
from adpur.purify.presets import one_shot
from adpur.threat.ball import L2
from adpur.threat.knowledge import Knowledge
from adpur.threat.losses import Margin

SIGMA = 2.0**-10
"""The noise in [0, 1] units: so small that no image of the experiment leaves the range."""


class Check(NamedTuple):
    """Share of attacks that succeed: measured, in closed form, and as RevPure prints it."""

    measured: Estimate
    exact: float
    printed: float


class Setting(ABC):
    """One classifier, one attacker, and what the attacker knows of the noise."""

    n: int

    @abstractmethod
    def classifier(self) -> nn.Module:
        """F: two logits of images `(B, 1, 1, n)`; class 0 is right."""

    @abstractmethod
    def attack(self) -> Attack:
        """The search, by the exact gradient of F(P(x))."""

    @property
    @abstractmethod
    def knowledge(self) -> Knowledge:
        """What is known of the evaluation's noise."""

    @property
    @abstractmethod
    def exact(self) -> float:
        """The probability that the attack succeeds."""

    @property
    @abstractmethod
    def printed(self) -> float:
        """What RevPure gives for it; NaN where it says nothing."""

    def check(self, trials: int = 2000, seed: int = 0, level: float = 0.95) -> Check:
        """Attack and judge `trials` copies of x_0, each with noise of its own."""
        x = torch.full((trials, 1, 1, self.n), CENTRE, dtype=torch.float64)
        y, attack = torch.zeros(trials, dtype=torch.int64), self.attack()
        purifier = one_shot(2 * SIGMA, clamp=False)  # diffused on [-1, 1], where lengths double
        defense = Defense(purifier, Networks(self.classifier(), Unmoved(self.n)), rows=512)

        images = Examples(x, y, Noise(torch.arange(trials), seed))
        trial = Trial(defense, attack, knowledge=self.knowledge)
        verdict = judge(defense, images, Draws(1, select=1), trial)
        wrong = np.array([s.predictions for s in verdict.scores], dtype=np.float64)
        return Check(mean_accuracy(wrong, level), self.exact, self.printed)


@dataclass(frozen=True)
class NoisyBall(Setting):
    """RevPure section 4.2: F is wrong in a ball of radius r around c and nowhere else.

    The attack goes to c - mean eta_0 (equations 6 and 7 with x_1 = c, which makes the bounds of
    equations 10 and 12 equalities). With E copies of fresh noise it succeeds with probability
    Psi(r^2 / (1 + 1/E); n), Psi the chi-square cdf with n degrees of freedom: Theorem 1 is E = 1
    and E -> infinity. With E of K known draws, those met have 1 - 1/E in place of 1 + 1/E, so
    replay (E = K = 1) always succeeds. Corollary 2.1 prints R for that probability and means
    1 - R: R is 0 here.

    None of this bounds the perturbation, as RevPure section 4.1 demands. Within `eps`, replay
    succeeds where the noise leaves x_0 within r + eps of c: a noncentral chi-square cdf, which
    falls with n as Theorem 1 does.

    Args:
        n: dimension.
        radius: r.
        copies: E, EOT copies.
        pool: K, draws of the noise there are; None is fresh noise.
        gap: from x_0 to the ball, d = r + gap from c.
        eps: L2 radius of the perturbation; for pool 1 alone.
    """

    n: int = 16
    radius: float = 4.0
    copies: int = 1
    pool: int | None = None
    gap: float = 2.0
    eps: float = math.inf

    def __post_init__(self) -> None:
        if not (self.radius > 0 and self.gap > 0 and self.radius + self.gap < 400):
            raise ConfigError(
                "NoisyBall expects radius > 0 and gap > 0, together below 400 sigma, "
                f"got {self.radius} and {self.gap}"
            )
        if self.n < 1 or self.copies < 1:
            raise ConfigError(f"NoisyBall n and copies must be >= 1, got {self.n}, {self.copies}")
        if self.eps < math.inf and self.pool != 1:
            raise ConfigError("NoisyBall eps has a closed form for pool 1 alone; leave it infinite")

    def classifier(self) -> nn.Module:
        """See the class."""
        shift = SIGMA * (self.radius + self.gap) / math.sqrt(self.n)
        return Ball(CENTRE + shift, SIGMA * self.radius)

    def attack(self) -> Attack:
        """See the class."""
        return Newton(SIGMA * self.eps, eot=self.copies)

    @property
    def knowledge(self) -> Knowledge:
        """Fresh, replay or semi-K."""
        return Knowledge(self.pool)

    @property
    def exact(self) -> float:
        """See the class."""
        if self.eps < math.inf:
            reach = (self.radius + self.eps) ** 2
            return float(stats.ncx2.cdf(reach, self.n, (self.radius + self.gap) ** 2))
        if self.pool is None:
            return self._inside(1 + 1 / self.copies)
        met = min(self.copies, self.pool)
        inside = self._inside(1 - 1 / met), self._inside(1 + 1 / met)
        return (met * inside[0] + (self.pool - met) * inside[1]) / self.pool

    @property
    def printed(self) -> float:
        """Theorem 1 and Corollary 2.1, the latter without its slip."""
        if self.pool is None:
            return self._inside(2.0 if self.copies == 1 else 1.0)
        return 1.0 if self.pool == 1 else math.nan

    def _inside(self, variance: float) -> float:
        return float(stats.chi2.cdf(self.radius**2 / variance, self.n)) if variance else 1.0


@dataclass(frozen=True)
class NoisyHalfSpace(Setting):
    """What Theorem 1 leaves unsaid: that F must be right everywhere outside the eps ball.

    Its proof puts F(c + eta) != y_0 equal to c + eta in A, and A lies within eps of x_0. A
    classifier that is locally linear is wrong in a half-space, `depth` from x_0. Noise does not
    lead out of that, whatever n: one step along the gradient succeeds with probability
    Phi(eps - depth) >= 1/2 under noise it never met, and replay adds nothing. The theorem allows
    Psi(r^2; n) at most, and r <= 2 eps.
    """

    n: int = 64
    depth: float = 1.0
    eps: float = 2.0
    pool: int | None = None

    def classifier(self) -> nn.Module:
        """See the class."""
        return HalfSpace(self.n, SIGMA * self.depth)

    def attack(self) -> Attack:
        """One normalised step."""
        eps = SIGMA * self.eps
        return PGD(eps, eps, 1, L2(), eot=1, random_start=False, loss=Margin())

    @property
    def knowledge(self) -> Knowledge:
        """Fresh, replay or semi-K."""
        return Knowledge(self.pool)

    @property
    def exact(self) -> float:
        """See the class."""
        return float(stats.norm.cdf(self.eps - self.depth))

    @property
    def printed(self) -> float:
        """The most Theorem 1 allows any attack, with EOT or without."""
        return float(stats.chi2.cdf((2 * self.eps) ** 2, self.n)) if self.pool is None else math.nan
