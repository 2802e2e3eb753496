"""Auto-PGD, without a step size to choose, on deterministic and on random defences."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from adpur.attacks.ascent import Ascent, Climbed, Copies
from adpur.attacks.attack import Attack, check_budget
from adpur.attacks.choice import WITHIN, strongest, strongest_found
from adpur.errors import ConfigError
from adpur.threat.ball import Linf, Norm
from adpur.threat.losses import CrossEntropy, Loss
from adpur.threat.oracle import Oracle
from adpur.types import ordered_mean


@dataclass(frozen=True)
class APGD(Attack):
    """APGD (Croce & Hein 2020) on the mean loss over `eot` draws of the defence.

    Steps halve and best points are kept by the mean over all copies. The best of a hundred noisy
    means is a lucky one, so of each run three points go on to `select` fresh selection draws: the
    highest mean loss, the most copies fooled, and the last. Every image is attacked to the end.

    Args:
        eps: radius in [0, 1] units.
        steps: iterations of each run.
        norm: Linf or L2.
        eot: draws whose losses and gradients are averaged at each iteration.
        restarts: independent runs.
        targets: 0 raises `loss` untargeted; k aims at each of the k most likely wrong classes in
            turn (fewer if there are fewer), one run and its restarts for each.
        select: selection draws that rank classes and decide between points and between runs.
        loss: what it raises; APGD-CE, APGD-DLR and, with targets 9, APGD-T are AutoAttack's.
    """

    eps: float = 8 / 255
    steps: int = 100
    norm: Norm = Linf()
    eot: int = 20
    restarts: int = 1
    targets: int = 0
    select: int = 20
    loss: Loss = CrossEntropy()

    def __post_init__(self) -> None:
        check_budget(self, "steps", "eot", "restarts", "select")
        if self.targets < 0:
            raise ConfigError(f"APGD targets must be >= 0 (0 is untargeted), got {self.targets}")

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        oracle = replace(oracle, loss=self.loss)
        runs = ((own, self._once) for own in self._aims(oracle, x))
        return strongest_found(oracle, x, runs, self.select)

    def _aims(self, oracle: Oracle, x: Tensor) -> Iterator[Oracle]:
        aims = [oracle]
        if self.targets:
            classes = likely_wrong(oracle, x, self.targets, self.select)
            aims = [oracle.towards(target) for target in classes]
        runs = [aim for _ in range(self.restarts) for aim in aims]
        return (aim.restarted(k) for k, aim in enumerate(runs))

    def _once(self, oracle: Oracle, x: Tensor) -> Tensor:
        ascent = Ascent(self.eps, self.norm, self.steps, Copies(self.eot))
        return strongest_point(oracle, ascent.climb(oracle, x), self.select)


def strongest_point(oracle: Oracle, climbed: Climbed, draws: int) -> Tensor:
    """Of a run's points the one that fools most of `draws` fresh selection draws."""
    if not oracle.random:
        return climbed.strongest.x
    points = (point.x for point in climbed)
    return strongest(points, lambda x: oracle.strength(x, draws, WITHIN))


def likely_wrong(oracle: Oracle, x: Tensor, count: int, draws: int) -> list[Tensor]:
    """The `count` wrong classes of the highest mean logits, most likely first, `(B,)` each."""
    logits = ordered_mean(oracle.answers(x, draws))
    logits = logits.scatter(1, oracle.y.view(-1, 1), -float("inf"))
    ranked = logits.argsort(dim=1, descending=True, stable=True)
    return list(ranked[:, : min(count, logits.shape[1] - 1)].unbind(1))
