"""DiffHammer (Wang et al. 2024): attack the draws that one perturbation can break together."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import Tensor

from adpur.attacks.apgd import strongest_point
from adpur.attacks.ascent import Ascent, Point
from adpur.attacks.attack import Attack, check_budget
from adpur.attacks.choice import strongest_found
from adpur.attacks.em_weights import Together, softplus
from adpur.errors import ConfigError
from adpur.threat.ball import Linf, Norm
from adpur.threat.losses import Loss, Margin
from adpur.threat.oracle import LevelGradient, Look, Oracle, fooled
from adpur.types import ordered_mean


@dataclass(frozen=True)
class DiffHammer(Attack):
    """APGD along the gradient of those draws that can be broken together (DiffHammer Algorithm 1).

    At each iteration E draws of the defence have a loss and the classifier's gradient at their
    purified image, which needs no backward pass through the purifier. An expectation step weighs
    the draws (`Together`), and their weighted gradient is put in at the purified image of the most
    representative draw, whose backward pass is the only one (gradient grafting, Eq. 10). Steps
    follow the average g_t = t^-memory g + (1 - t^-memory) g_(t-1).

    Step sizes halve and best points are kept by the mean of softplus(5 loss) / 5 over the draws,
    whose gradient weighs draws by sigmoid(5 loss): a mean loss would not move where one half of
    the draws rises as the other falls. The released code looks at the largest loss of any draw
    instead, counts a draw broken at any iterate as success and restarts only on what is left.
    Here every image is attacked to the end, and of each run the point of the highest value, the
    one that fooled most copies and the last go on to `select` fresh selection draws.

    As released, three restarts of 50 steps have the losses CW (`Margin`), CE and DLR: put three
    into a `Worst`. With CE, which is never negative, all draws weigh nearly the same.

    Args:
        eps: radius in [0, 1] units.
        steps: iterations of each run.
        norm: Linf or L2.
        eot: E.
        restarts: independent runs.
        rounds: of the expectation step.
        ahead: how far it looks ahead, see `Together`; eps if None.
        memory: alpha of the average; 0 has none.
        graft: False differentiates all E draws, with the block's own gradient, and weighs those:
            E backward passes an iteration, a little stronger in the paper (its Table 4).
        select: selection draws that decide between points and between runs.
        loss: what it raises; larger is to mean broken, and above 0 if it is.
    """

    eps: float = 8 / 255
    steps: int = 50
    norm: Norm = Linf()
    eot: int = 10
    restarts: int = 1
    rounds: int = 5
    ahead: float | None = 1.0
    memory: float = 0.5
    graft: bool = True
    select: int = 20
    loss: Loss = Margin()

    def __post_init__(self) -> None:
        check_budget(self, "steps", "eot", "restarts", "rounds", "select")
        for name in ("ahead", "memory"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise ConfigError(f"DiffHammer {name} must be >= 0, got {value}")

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        if self.graft and (oracle.levels != LevelGradient() or oracle.deviation is not None):
            raise ConfigError(
                "DiffHammer grafts the classifier's gradient, which knows nothing of t(x) (levels) "
                "or of the walk (DiffAttack); write graft: false, or leave those out"
            )
        runs = ((own, self._once) for own in self._runs(replace(oracle, loss=self.loss)))
        return strongest_found(oracle, x, runs, self.select)

    def _runs(self, oracle: Oracle) -> Iterator[Oracle]:
        return (oracle.restarted(k) for k in range(self.restarts))

    def _once(self, oracle: Oracle, x: Tensor) -> Tensor:
        ascent = Ascent(self.eps, self.norm, self.steps, _Blow(self))
        return strongest_point(oracle, ascent.climb(oracle, x), self.select)


@dataclass
class _Blow:
    """What one run asks: the average of the gradients so far, and how far the draws are broken."""

    attack: DiffHammer
    average: Tensor | None = field(default=None)

    def __call__(self, oracle: Oracle, x: Tensor, iteration: int) -> Point:
        """See `Ascent`."""
        ask = self._grafted if self.attack.graft else self._weighed
        look, grad = ask(oracle, x, iteration)
        share = (iteration + 1) ** -self.attack.memory
        old = grad if self.average is None else self.average
        self.average = share * grad + (1 - share) * old
        return Point(
            x, ordered_mean(softplus(look.loss)), self.average, fooled(look.logits, oracle.y)
        )

    def _together(self) -> Together:
        attack = self.attack
        ahead = attack.ahead if attack.ahead is not None else attack.eps
        return Together(attack.norm, attack.eps, ahead, attack.rounds)

    def _weighed(self, oracle: Oracle, x: Tensor, iteration: int) -> tuple[Look, Tensor]:
        look = oracle.per_draw(x, iteration, self.attack.eot)
        return look, self._together()(look.loss, look.grad).grad

    def _grafted(self, oracle: Oracle, x: Tensor, iteration: int) -> tuple[Look, Tensor]:
        look = replace(oracle.straight(), trace=None).per_draw(x, iteration, self.attack.eot)
        chosen = self._together()(look.loss, look.grad)
        grad = oracle.grafted(x, iteration, self.attack.eot, chosen.draw, chosen.grad)
        if oracle.trace is not None:
            oracle.trace.value(oracle.place, len(look.loss))  # as dear as a prediction
            oracle.trace.gradient(oracle.place, x, ordered_mean(look.loss)[None], grad[None])
        return look, grad
