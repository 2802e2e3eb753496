"""Several attacks as one, and AutoAttack's two ensembles."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from adpur.attacks.apgd import APGD
from adpur.attacks.attack import Attack, check_budget
from adpur.attacks.choice import MEMBERS, strongest_found
from adpur.attacks.fab import FAB
from adpur.attacks.square import Square
from adpur.errors import ConfigError
from adpur.threat.ball import Linf, Norm
from adpur.threat.losses import DLR, Loss
from adpur.threat.oracle import Oracle


@dataclass(frozen=True)
class Worst(Attack):
    """Run several attacks and keep, for each image, the strongest on fresh selection draws.

    Against a random defence every attack gets every image. Against a deterministic one, where
    broken is broken, an attack gets those that the ones before it left.

    Args:
        attacks: in this order; their own eps and norm are replaced by these.
        eps: radius in [0, 1] units.
        norm: of the ball.
        draws: selection draws that decide between attacks.
        deterministic: whether the ensemble means nothing on a random defence, and is refused there.
    """

    attacks: Sequence[Attack]
    eps: float = 8 / 255
    norm: Norm = Linf()
    draws: int = 20
    deterministic: bool = False

    def __post_init__(self) -> None:
        check_budget(self, "draws")
        if not self.attacks:
            raise ConfigError("Worst attacks: expected at least one, got none")
        object.__setattr__(self, "attacks", tuple(self.attacks))

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        if self.deterministic and oracle.random:
            raise ConfigError(
                "adpur.standard expects a deterministic defence, differentiated as it is, got a "
                "random one, on which it would count luck as success; use adpur.rand"
            )
        members = ((oracle, attack.at(self.eps, self.norm).run) for attack in self.attacks)
        return strongest_found(oracle, x, members, self.draws, MEMBERS)


@dataclass(frozen=True)
class Suited(Attack):
    """One attack for deterministic defences, another for random ones.

    Args:
        certain, random: the attacks; their own eps and norm are replaced by these.
        eps: radius in [0, 1] units.
        norm: of the ball.
    """

    certain: Attack
    random: Attack
    eps: float = 8 / 255
    norm: Norm = Linf()

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        attack = self.random if oracle.random else self.certain
        return attack.at(self.eps, self.norm).run(oracle, x)


def standard(eps: float = 8 / 255, norm: Norm = Linf(), loss: Loss = DLR()) -> Attack:
    """AutoAttack's `standard` (Croce & Hein 2020), for deterministic defences only.

    APGD-CE, then APGD-T and FAB-T on the 9 most likely wrong classes, 100 steps each, then Square
    with 5000 queries. `loss` is APGD-T's; below four classes, where DLR has no target, take Margin.
    """
    attacks = [APGD(), APGD(loss=loss, targets=9), FAB(targets=9), Square(steps=5000)]
    return Worst(attacks, eps, norm, deterministic=True)


def rand(
    eps: float = 8 / 255, norm: Norm = Linf(), eot: int = 20, steps: int = 100, loss: Loss = DLR()
) -> Attack:
    """AutoAttack's `rand` corrected: APGD-CE and APGD-DLR, every decision a mean over draws.

    Every image is attacked by both, to the end; what is reported are other draws than those that
    chose. `adpur.aa_legacy` is the ensemble as published. Below three classes take Margin.
    """
    return Worst([APGD(steps=steps, eot=eot), APGD(steps=steps, eot=eot, loss=loss)], eps, norm)
