"""An attack block, and the trial it is on one row at one radius."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from adpur.attacks.attack import Attack
from adpur.defense.defense import Defense
from adpur.defense.gradient import Exact, GradientMode
from adpur.errors import ConfigError
from adpur.judging.records import Described, describe
from adpur.judging.scoreboard import CLEAN, Column
from adpur.judging.threats import UNION
from adpur.keyed.noise import Noise
from adpur.models.keyed import Seeded
from adpur.threat.ball import Linf, Threat
from adpur.threat.knowledge import Knowledge
from adpur.threat.oracle import LevelGradient, Oracle


class Examples(NamedTuple):
    """Images `(B, C, H, W)` in [0, 1], labels `(B,)`, and a noise key for each."""

    x: Tensor
    y: Tensor
    noise: Noise

    def first(self, count: int) -> "Examples":
        """The first of them."""
        return self.rows(slice(count))

    def rows(self, chosen: slice) -> "Examples":
        """Some of them."""
        return Examples(self.x[chosen], self.y[chosen], self.noise[chosen])


@dataclass(frozen=True)
class NoAttack(Attack):
    """Returns the clean images: the attack of a clean column."""

    eps: float = 0.0
    norm: Threat = Linf()

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """The images themselves; nothing is asked."""
        return x


@dataclass(frozen=True)
class Trial:
    """An attack block bound to a row and a radius: what `judge` lets loose on a batch.

    Args:
        defense: what the attacker queries and differentiates; a transfer's is not what is judged.
        attack: the search, at its radius.
        gradient: the purifier he differentiates in place of the deployed one.
        knowledge: which evaluation noise he knows.
        levels: how he treats a computed t(x).
        random: whether two draws of `defense` can differ.
        cosine: draws over which his gradient is compared with the exact one; 0 does not.
    """

    defense: Defense
    attack: Attack = NoAttack()
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


@dataclass(frozen=True)
class AttackBlock:
    """One attack, one way of differentiating and one state of knowledge, on some rows.

    Args:
        name: as it stands in the table.
        attack: the search.
        gradient: the purifier the attacker differentiates.
        knowledge: which evaluation noise the attacker knows.
        radii: of the attack, a column each.
        rows: it is run on; None is all of the table.
        levels: how the attack treats a computed t(x).
        cosine: draws over which its gradient is compared with the exact one; 0 does not.
        source: the row whose defence the attacker has, in place of the one that is judged.
    """

    name: str
    attack: Attack
    gradient: GradientMode = Exact()
    knowledge: Knowledge = Knowledge()
    radii: tuple[float, ...] = ()
    rows: tuple[str, ...] | None = None
    levels: LevelGradient = LevelGradient()
    cosine: int = 0
    source: str | None = None

    def __post_init__(self) -> None:
        if self.name.startswith((CLEAN, UNION)):
            raise ConfigError(
                f"a Robustness block cannot be named {self.name!r}: {CLEAN} and {UNION} are "
                "columns of their own"
            )
        if self.source is not None and self.cosine:
            raise ConfigError(
                f"block {self.name!r}: cosine compares with the exact gradient of the row "
                "attacked, which an attacker with a source does not have; leave one of them out"
            )
        if not self.radii:
            object.__setattr__(self, "radii", (self.attack.eps,))
        _ = self.attacks  # an attack refuses a radius that it cannot have

    @property
    def attacks(self) -> list[Attack]:
        """The attack at each radius."""
        return [self.attack.at(eps) for eps in self.radii]

    @property
    def largest(self) -> float:
        """The largest radius."""
        return max(self.radii)

    def on(self, table: Iterable[str]) -> "AttackBlock":
        """The block with its rows written out, or an error that names those the table lacks."""
        there = tuple(table)
        rows = self.rows if self.rows is not None else there
        named = {*rows, *([self.source] if self.source is not None else [])}
        if unknown := named - set(there):
            raise ConfigError(
                f"block {self.name!r}: no row named {', '.join(sorted(unknown))}; "
                f"there is: {', '.join(there)}"
            )
        return replace(self, rows=rows)

    def attacked(self, row: str) -> str:
        """The row whose defence the attacker has."""
        return self.source if self.source is not None else row

    def trial(self, defense: Defense, eps: float, random: bool) -> Trial:
        """The block at a radius, against the defence that the attacker has."""
        return Trial(
            defense, self.attack.at(eps), self.gradient, self.knowledge, self.levels, random,
            self.cosine,
        )  # fmt: skip

    def check(self, row: str, defense: Defense) -> None:
        """Refuse a defence, the attacker's on `row`, on which the block would mean nothing."""
        view = self.gradient.view(defense.purifier)
        view.check(defense.networks, defense.networks.shape)
        if unknowable(defense, self.knowledge):
            raise ConfigError(
                f"block {self.name!r}: row {row!r} draws by itself, and nobody can know that "
                "noise; use knowledge: adpur.white_box"
            )
        self.levels.check(view)

    def columns(self, row: str) -> list[Column]:
        """The attacked columns of a row, one a radius."""
        return [Column(row, self.name, eps) for eps in self.radii]

    def clean(self, row: str) -> Column:
        """The column to compare with: clean images under the same noise."""
        pooled = self.knowledge.pool is not None
        return Column(row, f"{CLEAN} ({self.name})") if pooled else Column(row)

    def comparable(self, other: "AttackBlock") -> bool:
        """Whether both are of one norm and one state of knowledge."""
        return self.knowledge == other.knowledge and self.attack.norm == other.attack.norm

    def described(self) -> Described:
        """What it is, as a run's identity holds it."""
        fields = {
            "attacks": self.attacks,
            "gradient": self.gradient,
            "knowledge": self.knowledge,
            "levels": self.levels,
            "cosine": self.cosine,
            "source": self.source,
            "only": self.rows,
        }
        return Described.of(describe(fields), DEFAULTS)


DEFAULTS = {
    name: AttackBlock.__dataclass_fields__[name].default
    for name in ("gradient", "knowledge", "levels", "cosine", "source")
}
"""What a described block means that lacks a setting: what it does without it."""


def unknowable(defense: Defense, knowledge: Knowledge) -> bool:
    """Whether it is of noise a classifier draws by itself (`Seeded`), which nobody can know."""
    return knowledge.pool is not None and isinstance(defense.networks.classifier, Seeded)
