"""What the plots of a report show: numbers only, each from the records and the manifest."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from adpur.metrics.scoreboard import Column, Outcome
from adpur.metrics.statistics import worst_of
from adpur.metrics.threats import headline
from adpur.plots import Series
from adpur.report.markdown import label
from adpur.report.run import Run


def robust(run: Run, row: str) -> tuple[Column, Outcome] | None:
    """The column a row is known by (`headline`), where it was attacked."""
    column = headline(row, run.outcomes, run.identity["attacks"])
    return None if column is None else (column, run.columns[column])


def against_eps(run: Run) -> list[Series]:
    """Accuracy against the radius, from clean at 0, of blocks that were run at several."""
    found: dict[tuple[str, str], dict[float, Outcome]] = {}
    for column, outcome in run.columns.items():
        if not column.clean:
            found.setdefault((column.row, column.attack), {})[column.eps] = outcome
    return [
        _estimated(f"{row} / {attack}", {0.0: run.outcomes[Column(row)]} | at)
        for (row, attack), at in found.items()
        if len(at.keys() - {0.0}) > 1
    ]


def against_looks(run: Run) -> list[Series]:
    """Worst-of-n for n = 1 ... N, clean and under the attack a row is known by."""
    made = []
    for row in run.rows:
        attacked = robust(run, row)
        if attacked is not None:
            made.append(_looks(row, attacked[1], False))
        made.append(_looks(row, run.outcomes[Column(row)], attacked is not None))
    return made


def against_queries(run: Run, attack: str, eps: float) -> list[Series]:
    """The attack's own loss at each gradient query, mean over the images that still asked."""
    made = []
    for row in run.rows:
        outcome = run.outcomes.get(Column(row, attack, eps))
        losses = [s.loss for s in outcome.scores] if outcome is not None else []
        if longest := max(map(len, losses), default=0):
            padded = np.array([loss + [np.nan] * (longest - len(loss)) for loss in losses])
            queries = [float(k) for k in range(1, longest + 1)]
            made.append(Series(row, queries, np.nanmean(padded, axis=0).tolist()))
    return made


def against_compute(run: Run) -> list[Series]:
    """Accuracy against rows differentiated or evaluated per image; a union costs its attacks' sum."""
    made = []
    for column, outcome in run.columns.items():
        if outcome.compute > 0:
            name = f"{column.row} / {label(column)}"
            made.append(_estimated(name, {outcome.compute: outcome}))
    return made


def against_level(run: Run, row: str) -> list[Series]:
    """Share of right draws in ten equal bins of t(x), where a row has a level per image."""
    made = []
    attacked = robust(run, row)
    shown = {"clean": run.outcomes[Column(row)]}
    shown |= {} if attacked is None else {label(attacked[0]): attacked[1]}
    pooled = np.concatenate([o.t.ravel() for o in shown.values()])
    if not np.isfinite(pooled).all() or np.ptp(pooled) == 0:
        return []
    edges = np.linspace(pooled.min(), pooled.max(), 11)
    for name, outcome in shown.items():
        at = np.clip(np.digitize(outcome.t.ravel(), edges) - 1, 0, 9)
        right = outcome.correct.ravel()
        used = [k for k in range(10) if (at == k).any()]
        middles = ((edges[1:] + edges[:-1]) / 2)[used].tolist()
        share = [100 * float(right[at == k].mean()) for k in used]
        made.append(Series(name, middles, share))
    return made


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
            at = {v: run.outcomes.get(Column(row, *member)) for v, member in members.items()}
            known = {value: outcome for value, outcome in at.items() if outcome is not None}
            shown += [_estimated(row, known)] if len(known) > 1 else []
        if shown:
            yield setting, shown


def row_sweeps(run: Run) -> Iterator[tuple[str, list[Series]]]:
    """Accuracy of each attack against a number in which rows alone differ, as `--vary` makes them."""
    trees = {r: [run.identity["defenses"][r], run.identity["networks"][r]] for r in run.rows}
    for setting, members in sweeps(trees):
        shown = []
        for attack, eps in dict.fromkeys((c.attack, c.eps) for c in run.columns):
            at = {v: run.columns.get(Column(row, attack, eps)) for v, row in members.items()}
            known = {value: outcome for value, outcome in at.items() if outcome is not None}
            if len(known) > 1:
                shown.append(_estimated(label(Column("", attack, eps)), known))
        yield setting, shown


def _leaves(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, tree


def _estimated(name: str, at: Mapping[float, Outcome]) -> Series:
    """Percent right with its interval at each value."""
    told = [at[value].estimates()["acc"] for value in sorted(at)]
    value, low, high = ([100 * v for v in part] for part in zip(*told, strict=True))
    return Series(name, sorted(at), value, low, high)


def _looks(row: str, outcome: Outcome, aside: bool) -> Series:
    looks = range(1, outcome.correct.shape[1] + 1)
    share = [100 * worst_of(outcome.correct, n).value for n in looks]
    return Series(row, list(map(float, looks)), share, aside=aside)
