"""One attack block on one row: everything but the images."""

from dataclasses import dataclass, replace

from torch import Tensor

from adpur.attacks.attack import Attack
from adpur.defense.defense import Defense
from adpur.defense.gradient import Exact, GradientMode
from adpur.judging.judge import Bench, Found, Search, Verdict, judge
from adpur.judging.scoreboard import CLEAN, Column
from adpur.keyed.noise import Noise
from adpur.models.keyed import Seeded
from adpur.threat.compare import gradient_cosine
from adpur.threat.knowledge import Knowledge
from adpur.threat.oracle import LevelGradient, Oracle
from adpur.threat.trace import Trace


def unknowable(defense: Defense, knowledge: Knowledge) -> bool:
    """Whether it is of noise a classifier draws by itself (`Seeded`), which nobody can know."""
    return knowledge.pool is not None and isinstance(defense.networks.classifier, Seeded)


@dataclass(frozen=True)
class Trial:
    """How an attacker who sees `defense` in a certain way searches, and what he knows.

    Args:
        defense: what the attacker queries and differentiates.
        attack: the search.
        gradient: the purifier he differentiates in place of the deployed one.
        knowledge: which evaluation noise he knows.
        levels: how he treats a computed t(x).
        random: whether two draws of the defence can differ.
        cosine: draws over which his gradient is compared with the exact one; 0 does not.
    """

    defense: Defense
    attack: Attack
    gradient: GradientMode = Exact()
    knowledge: Knowledge = Knowledge()
    levels: LevelGradient = LevelGradient()
    random: bool = True
    cosine: int = 0

    def oracle(self, y: Tensor, noise: Noise, knowledge: Knowledge | None = None) -> Oracle:
        """What the attacker may ask at images with labels `y` `(B,)`."""
        view = self.gradient.view(self.defense.purifier)
        known = knowledge if knowledge is not None else self.knowledge
        random = self.random or self.gradient.draws
        return Oracle(self.defense, view, y, noise, known, levels=self.levels, random=random)

    @property
    def search(self) -> Search:
        """The search that `judge` calls."""

        def search(x: Tensor, y: Tensor, noise: Noise, known: Knowledge, trace: Trace) -> Found:
            oracle = self.oracle(y, noise, known)
            cosine = gradient_cosine(oracle, x, self.cosine) if self.cosine else None
            return Found(self.attack.run(replace(oracle, trace=trace), x), cosine)

        return search

    def judged(
        self, x: Tensor, y: Tensor, noise: Noise, bench: Bench, deployed: Defense | None = None,
        trace: Trace | None = None,
    ) -> Verdict:  # fmt: skip
        """What `deployed`, by default the attacked defence itself, says of what he finds."""
        target = deployed if deployed is not None else self.defense
        attack = self.attack
        return judge(
            target, x, y, noise, bench, self.search, self.knowledge, attack.norm, attack.eps, trace
        )


@dataclass(frozen=True)
class Block:
    """A named trial on one row of the table, at some radii."""

    row: str
    name: str
    trial: Trial
    radii: tuple[float, ...]

    def at(self, eps: float, random: bool) -> Trial:
        """The trial at one of its radii."""
        attack = replace(self.trial.attack, eps=eps)  # type: ignore[type-var]
        return replace(self.trial, attack=attack, random=random)

    @property
    def columns(self) -> list[Column]:
        """One a radius."""
        return [Column(self.row, self.name, eps) for eps in self.radii]

    @property
    def clean(self) -> Column:
        """The column to compare with: clean images under the same noise."""
        pooled = self.trial.knowledge.pool is not None
        return Column(self.row, f"{CLEAN} ({self.name})") if pooled else Column(self.row)

    def comparable(self, other: "Block") -> bool:
        """Whether both are on one row, in one norm, with one state of knowledge."""
        mine, its = self.trial, other.trial
        same = mine.knowledge == its.knowledge and mine.attack.norm == its.attack.norm
        return self.row == other.row and same
