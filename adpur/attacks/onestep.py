"""One step of steepest ascent, in any threat."""

from dataclasses import dataclass, replace

from torch import Tensor

from adpur.attacks.attack import Attack, check_budget
from adpur.threat.ball import Linf, Threat
from adpur.threat.losses import CrossEntropy, Loss
from adpur.threat.oracle import Oracle


@dataclass(frozen=True)
class OneStep(Attack):
    """From the clean image along the mean gradient over `eot` draws, all of eps at once.

    In Linf FGSM (Goodfellow et al. 2015), in L2 its normalised form; under `Flow` every pixel moves
    by eps. What a gradient is worth by itself (`adpur analyse gradient-agreement`), and what an
    attack that iterates may not be weaker than.

    Args:
        eps: size of the step.
        norm: Linf, L2 or Flow.
        eot: draws whose gradients are averaged.
        loss: what it raises.
    """

    eps: float = 8 / 255
    norm: Threat = Linf()
    eot: int = 10
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        check_budget(self, "eot")

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        _, grad = replace(oracle, loss=self.loss).value_and_grad(x, 0, self.eot)
        return self.norm.ascent(x, grad, self.eps)
