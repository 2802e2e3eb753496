"""Rows or attack blocks of a run that differ in one number, and what that number does."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from adpur.judging.scoreboard import Column
from adpur.report.curves import estimated
from adpur.report.draw.plots import Series
from adpur.report.markdown import label
from adpur.report.run import Run


class Sweep(NamedTuple):
    """Things that differ in one number: its name, and the things by its value."""

    setting: str
    members: dict[float, Any]


def sweeps(described: Mapping[Any, Any]) -> Iterator[Sweep]:
    """Every group of trees that are equal but for one number, at one place.

    >>> blocks = {"a": {"steps": 5, "eot": 1}, "b": {"steps": 9, "eot": 1}, "c": {"steps": 9}}
    >>> list(sweeps(blocks))
    [Sweep(setting='steps', members={5: 'a', 9: 'b'})]
    """
    flat = {name: dict(_leaves(tree)) for name, tree in described.items()}
    for place in dict.fromkeys(p for leaves in flat.values() for p in leaves):
        groups: dict[Any, dict[float, Any]] = {}
        for name, leaves in flat.items():
            value = leaves.get(place)
            if isinstance(value, int | float) and not isinstance(value, bool):
                rest = tuple((p, repr(v)) for p, v in sorted(leaves.items()) if p != place)
                groups.setdefault(rest, {})[value] = name
        for members in groups.values():
            if len(members) > 1:
                yield Sweep(place.rpartition(".")[2], dict(sorted(members.items())))


def attack_sweeps(run: Run) -> Iterator[tuple[str, list[Series]]]:
    """Accuracy of each row against a number in which blocks alone differ: steps, EOT, eps."""
    trees = {
        (name, attack["eps"]): {"attack": attack}
        | {k: v for k, v in block.items() if k not in ("attacks", "only")}
        for name, block in run.identity["attacks"].items()
        for attack in block["attacks"]
    }
    for setting, members in sweeps(trees):
        if len({name for name, _ in members.values()}) == 1:
            continue  # one block at several eps: `against_eps`
        shown = []
        for row in run.rows:
            at = ((v, run.outcomes.get(Column(row, *member))) for v, member in members.items())
            known = [(value, outcome) for value, outcome in at if outcome is not None]
            shown += [estimated(row, known)] if len(known) > 1 else []
        if shown:
            yield setting, shown


def row_sweeps(run: Run) -> Iterator[tuple[str, list[Series]]]:
    """Accuracy of each attack against a number in which rows alone differ, as after `--vary`."""
    trees = {r: [run.identity["defenses"][r], run.identity["networks"][r]] for r in run.rows}
    for setting, members in sweeps(trees):
        shown = []
        for attack, eps in dict.fromkeys((c.attack, c.eps) for c in run.columns):
            at = ((v, run.columns.get(Column(row, attack, eps))) for v, row in members.items())
            known = [(value, outcome) for value, outcome in at if outcome is not None]
            if len(known) > 1:
                shown.append(estimated(label(Column("", attack, eps)), known))
        yield setting, shown


def _leaves(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, tree
