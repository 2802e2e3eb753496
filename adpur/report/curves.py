"""What the plots of a report show: numbers only, each from the records and the manifest."""

from collections.abc import Iterable

import numpy as np

from adpur.judging.scoreboard import Column, Outcome
from adpur.judging.statistics import worst_of
from adpur.judging.threats import headline
from adpur.report.draw.plots import Series
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
        estimated(f"{row} / {attack}", ({0.0: run.outcomes[Column(row)]} | at).items())
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
    """Accuracy of each row against rows differentiated or evaluated per image, cheapest first.

    A union costs what its attacks cost together.
    """
    made = []
    for row in run.rows:
        asked = [(o.compute, o) for c, o in run.columns.items() if c.row == row and o.compute]
        made += [estimated(row, asked)] if asked else []
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
        weight = [float((at == k).mean()) for k in used]
        made.append(Series(name, middles, share, weight=weight))
    return made


def estimated(name: str, at: Iterable[tuple[float, Outcome]]) -> Series:
    """Percent right with its interval at each value."""
    ordered = sorted(at, key=lambda pair: pair[0])
    told = [outcome.estimates()["acc"] for _, outcome in ordered]
    value, low, high = ([100 * v for v in part] for part in zip(*told, strict=True))
    return Series(name, [x for x, _ in ordered], value, low, high)


def _looks(row: str, outcome: Outcome, aside: bool) -> Series:
    looks = range(1, outcome.correct.shape[1] + 1)
    share = [100 * worst_of(outcome.correct, n).value for n in looks]
    return Series(row, list(map(float, looks)), share, aside=aside)
