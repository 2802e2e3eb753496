"""ScoreOpt's ablations: how long to optimise, against what, and how hard to average the attack."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from adpur.attacks.attack import changed
from adpur.errors import ConfigError
from adpur.judging.trial import AttackBlock
from adpur.papers.analysis import Analysis, Answer
from adpur.papers.subject import Subject
from adpur.papers.sweeps import At, having, over, with_purifier
from adpur.purify.base import replaced
from adpur.purify.scoreopt import SR, Anchored, Diff, Objective, ScoreOpt

STEPS = (1, 2, 5, 10, 20)
WEIGHTS = (0.1, 0.3, 1.0, 3.0, 10.0)
COPIES = (1, 2, 5, 10, 20)


@dataclass(frozen=True)
class StepsAccuracy(Analysis):
    """ScoreOpt Fig. 2a, 2b and 3: accuracy over the number of optimisation steps, by objective.

    Of rows with a ScoreOpt, whose N ("Step") is set and whose objective is replaced; learning rate
    and noise level stay the row's. The paper names no lambda for MSE; it is 1 here. Every point
    costs the block's whole attack, in which a purification costs N gradients of the network.

    Args:
        steps: N of each point.
        objectives: a curve each, `adpur.Diff`, `adpur.Anchored` (the paper's MSE) and `adpur.SR`.
        blocks: attack blocks of the config; by default the first of each row.
        eps: radius; by default the largest of each block.
    """

    steps: tuple[int, ...] = STEPS
    objectives: tuple[Objective, ...] = (Diff(), Anchored(), SR())
    blocks: tuple[str, ...] = ()
    eps: float | None = None

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 0 or not self.objectives:
            raise ConfigError(f"expected steps >= 0 and an objective, got {self.steps}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A curve for each row and objective."""
        return over("optimisation steps", self._points(subjects), self.blocks, self.eps)

    def _points(self, subjects: Sequence[Subject]) -> Iterator[At]:
        for subject in having(subjects, ScoreOpt):
            for objective in self.objectives:
                for steps in self.steps:
                    one = _with(subject, inner_steps=steps, objective=objective)
                    yield At(f"{subject.row}, {_short(objective)}", steps, one)


@dataclass(frozen=True)
class ObjectiveWeight(Analysis):
    """ScoreOpt Fig. 2c: accuracy over lambda, the weight of the second term, for MSE and SR.

    Of rows with a ScoreOpt, whose objective is replaced; all else stays the row's. Every point
    costs the block's whole attack. Weight 0 is Diff, which `steps-accuracy` draws.

    Args:
        weights: lambda of each point, on a logarithmic axis.
        objectives: a curve each, `adpur.Anchored` (the paper's MSE) and `adpur.SR`.
        blocks: attack blocks of the config; by default the first of each row.
        eps: radius; by default the largest of each block.
    """

    weights: tuple[float, ...] = WEIGHTS
    objectives: tuple[Objective, ...] = (Anchored(), SR())
    blocks: tuple[str, ...] = ()
    eps: float | None = None

    def __post_init__(self) -> None:
        if not self.weights or min(self.weights) <= 0:
            raise ConfigError(f"expected weights > 0, got {self.weights}; weight 0 is adpur.Diff")
        if any(not hasattr(o, "weight") for o in self.objectives) or not self.objectives:
            raise ConfigError(f"expected objectives with a weight, got {self.objectives}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A curve for each row and objective."""
        return over("lambda", self._points(subjects), self.blocks, self.eps, log=True)

    def _points(self, subjects: Sequence[Subject]) -> Iterator[At]:
        for subject in having(subjects, ScoreOpt):
            for objective in self.objectives:
                for weight in self.weights:
                    weighted = replace(objective, weight=weight)  # type: ignore[type-var]
                    one = _with(subject, objective=weighted)
                    yield At(f"{subject.row}, {_short(objective)}", weight, one)


@dataclass(frozen=True)
class EotAccuracy(Analysis):
    """ScoreOpt Fig. 4 and 5: robust accuracy over the number of EOT replicates.

    Only the attack changes: `eot` of each block, PGD's and BPDA's alike. An attack costs as much
    as it has replicates; a row whose draws do not differ is attacked with one whatever is asked.

    Args:
        eot: replicates of each point.
        blocks: attack blocks of the config; by default all of each row.
        eps: radius; by default the largest of each block.
    """

    eot: tuple[int, ...] = COPIES
    blocks: tuple[str, ...] = ()
    eps: float | None = None

    def __post_init__(self) -> None:
        if not self.eot or min(self.eot) < 1:
            raise ConfigError(f"expected eot >= 1, got {self.eot}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A curve for each row and block."""
        points = self._points(subjects)
        return over("EOT replicates", points, self.blocks or None, self.eps, log=True)

    def _points(self, subjects: Sequence[Subject]) -> Iterator[At]:
        for subject in subjects:
            for eot in self.eot:
                asked = [subject.block(name) for name in self.blocks] or subject.blocks
                blocks = tuple(_averaging(block, eot) for block in asked)
                yield At(subject.row, eot, replace(subject, blocks=blocks))


def _with(subject: Subject, **settings: object) -> Subject:
    """The row with other settings of its ScoreOpt."""

    def change(one: ScoreOpt) -> ScoreOpt:
        return replace(one, **settings)  # type: ignore[arg-type]

    return with_purifier(subject, replaced(subject.defense.purifier, ScoreOpt, change))


def _averaging(block: AttackBlock, eot: int) -> AttackBlock:
    own = block.attack
    if changed(own, eot=lambda n: n + 1) == own:
        raise ConfigError(
            f"block {block.name!r}: expected an attack with eot, got {type(own).__name__}; leave "
            "the block out with --blocks"
        )
    return replace(block, attack=changed(own, eot=lambda _: eot))


def _short(objective: Objective) -> str:
    return type(objective).__name__
