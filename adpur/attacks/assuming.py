"""An attack that is wrong about what it knows."""

from dataclasses import dataclass, replace

from torch import Tensor

from adpur.attacks.attack import Attack
from adpur.threat.ball import Linf, Threat
from adpur.threat.knowledge import Knowledge
from adpur.threat.oracle import Oracle


@dataclass(frozen=True)
class Assuming(Attack):
    """Another attack run as if it knew `knowledge`; its result is judged as the block says.

    A replay attack scored on fresh draws assumes `adpur.replay` in a block of `adpur.white_box`:
    what is left of it is what transfers from one draw of the noise to the others.

    Args:
        attack: the search.
        knowledge: what it takes for true.
        eps: radius in [0, 1] units, in place of the attack's own.
        norm: what may be done, in place of the attack's own.
    """

    attack: Attack
    knowledge: Knowledge
    eps: float = 8 / 255
    norm: Threat = Linf()

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        attack = self.attack.at(self.eps, self.norm)
        return attack.run(replace(oracle, knowledge=self.knowledge), x)
