"""Attack blocks of one threat model, and the attacker who has them all."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from adpur.judging.scoreboard import Column, Outcome
from adpur.keyed.noise import ALL

UNION = "union"
Outcomes = Mapping[Column, Outcome]
Blocks = Mapping[str, Any]
"""The attack blocks of a run by name, as its identity describes them."""


class Threat(NamedTuple):
    """What an attacker may do and knows; only attacks of the same threat can be united."""

    norm: str
    knowledge: str
    eps: float

    @property
    def pooled(self) -> bool:
        """Whether the attacker knows some of the noise it is scored on."""
        return self.knowledge != FRESH

    def __str__(self) -> str:
        return f"{self.norm}, eps {self.eps:g}, {self.knowledge}"


FRESH = "fresh noise"


def knowledge(described: Mapping[str, Any]) -> str:
    """A described `Knowledge` in words; different ones differ.

    >>> streams = ["FORWARD"]
    >>> knowledge({"pool": 1, "streams": streams, "seeds": 3, "seed": 0})
    'pool 1, forward, seeds 3'
    """
    if described["pool"] is None:
        return FRESH
    told = [f"pool {described['pool']}"]
    if set(described["streams"]) < {stream.name for stream in ALL}:
        told.append(" ".join(sorted(described["streams"])).lower())
    told += [f"{k} {described[k]}" for k in ("seeds", "seed") if described[k] != (k == "seeds")]
    return ", ".join(told)


def threat(column: Column, blocks: Blocks) -> Threat:
    """The threat of an attacked column."""
    block = blocks[column.attack]
    norms = {attack["norm"]["class"] for attack in block["attacks"]}
    return Threat(" ".join(sorted(norms)), knowledge(block["knowledge"]), column.eps)


def by_threat(outcomes: Outcomes, blocks: Blocks, row: str) -> dict[Threat, list[Column]]:
    """The attacked columns of a row, in the order they were declared."""
    found: dict[Threat, list[Column]] = {}
    for column in outcomes:
        if column.row == row and not column.clean:
            found.setdefault(threat(column, blocks), []).append(column)
    return found


def unions(outcomes: Outcomes, blocks: Blocks) -> dict[Column, Outcome]:
    """For each row and threat with two attacks or more, the best of them by selection draws.

    Leaving an image alone is an attack too, unless the noise is pooled: then the clean column was
    scored on other draws. A null threat (eps 0) has nothing to unite.
    """
    made = {}
    for row in dict.fromkeys(column.row for column in outcomes):
        for danger, columns in by_threat(outcomes, blocks, row).items():
            if len(columns) > 1 and danger.eps > 0:
                candidates = [outcomes[c] for c in columns]
                if not danger.pooled:
                    candidates.append(outcomes[Column(row)])
                made[union_of(row, danger, blocks)] = Outcome.union(candidates)
    return made


def headline(row: str, outcomes: Outcomes, blocks: Blocks) -> Column | None:
    """The one attacked column, or union, that a row is known by; None without attacks.

    Its first norm, fresh noise before pools, the largest eps, and there the union, not the lowest
    of the reported columns: among several equal attacks a minimum over what was measured falls
    by luck, and the more so the more attacks are run.
    """
    found = by_threat(outcomes, blocks, row)
    if not found:
        return None
    first = min(found, key=lambda t: t.pooled)
    worst = max((t for t in found if t[:2] == first[:2]), key=lambda t: t.eps)
    return union_of(row, worst, blocks) if len(found[worst]) > 1 and worst.eps else found[worst][0]


def union_of(row: str, danger: Threat, blocks: Blocks) -> Column:
    """The column of a threat's union: named by norm where the run has several, and by knowledge."""
    norms = {attack["norm"]["class"] for block in blocks.values() for attack in block["attacks"]}
    told = [danger.norm] if len(norms) > 1 else []
    told += [danger.knowledge] if danger.pooled else []
    return Column(row, UNION + (f" ({', '.join(told)})" if told else ""), danger.eps)
