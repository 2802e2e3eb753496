"""DiffAttack (Kang, Song & Li 2023): raise how far the reverse process strays, too."""

from dataclasses import dataclass, replace

from torch import Tensor

from adpur.attacks.attack import Attack, check_budget
from adpur.attacks.worst import rand
from adpur.errors import ConfigError
from adpur.threat.ball import Linf, Threat
from adpur.threat.oracle import Oracle
from adpur.threat.trace import Trace


@dataclass(frozen=True)
class DiffAttack(Attack):
    """Another attack on L = L_cls + weight L_dev (DiffAttack Eq. 8 and 10).

    L_dev = E_t alpha(t) d(x_t, x'_t) compares the diffused image with the reverse process at the
    same t. Every step of the deployed grid is sampled, alpha(t) = 1 / steps as in their section
    D.2, and d, which the paper leaves open, is the mean squared difference in signed images.
    x_t = alpha_t x + sigma_t eps has the noise that diffused the image: each x_t has the law of
    their chain x_1, ..., x_T given x, and none but the defence's noise is drawn. The rounds of a
    chain of purifiers each count from their own input.

    The block's `gradient` must go through the reverse process: BPDA, and rows that do not diffuse
    (Identity, ScoreOpt, RevPure), are refused, and so are attacks by queries alone; under a
    `Surrogate` the deviation is that of the surrogate. What is chosen on selection draws is chosen
    without L_dev.

    On digits (`diffhammer_digits`) weight 1 makes APGD-CE weaker, accuracy 48.0 against 42.0:
    where the cross-entropy is nearly 0 only L_dev is raised. With `Margin` it makes no difference.

    Args:
        attack: the search; as published APGD-CE, then APGD-DLR, 100 steps with 20 EOT copies.
        weight: lambda, 1 in the paper.
        eps: radius in [0, 1] units, in place of the attack's own.
        norm: of the ball, in place of the attack's own.
    """

    attack: Attack = rand()
    weight: float = 1.0
    eps: float = 8 / 255
    norm: Threat = Linf()

    def __post_init__(self) -> None:
        check_budget(self)
        if not 0 <= self.weight < float("inf"):
            raise ConfigError(f"DiffAttack weight must be >= 0 (lambda), got {self.weight}")

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        attack = self.attack.at(self.eps, self.norm)
        trace = oracle.trace if oracle.trace is not None else Trace(int(oracle.place.max()) + 1)
        before = sum(trace.gradients)
        found = attack.run(replace(oracle, deviation=self.weight, trace=trace), x)
        if sum(trace.gradients) == before:
            raise ConfigError(
                f"DiffAttack expects an attack that follows gradients, got "
                f"{type(self.attack).__name__}, which never sees the deviation"
            )
        return found
