"""Finished runs as tables, from their records alone."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from adpur.errors import ConfigError
from adpur.metrics.scoreboard import Column, Outcome
from adpur.metrics.statistics import mean_accuracy, paired_difference
from adpur.records import Records
from adpur.trust.report import lines


class Run(NamedTuple):
    """A run folder read back."""

    folder: Path
    identity: dict[str, Any]
    outcomes: dict[Column, Outcome]
    seconds: dict[Column, float]


def read_run(folder: Path) -> Run:
    """Read the records of a run folder, in the order of its rows."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise ConfigError(f"{folder} is not a run folder: it holds no manifest.json")
    content = json.loads(manifest.read_text())
    records = Records(folder)
    records.read()
    declared = [Column(*column) for column in content["columns"]]
    outcomes = {c: Outcome.of(records.scores[c].values()) for c in declared if c in records.scores}
    if any(Column(row) not in outcomes for row in content["identity"]["defenses"]):
        raise ConfigError(f"{folder} has no images in every row yet; finish the run first")
    return Run(folder, content["identity"], outcomes, records.seconds())


def show_run(folder: Path) -> None:
    """Print a run's table and where everything is, and write the table beside the records."""
    run = read_run(folder)
    text = "\n".join([*table([run]), "", footnote(run), *separations(run), *cosines(run)])
    trust = "\n".join(lines(folder))
    print("\n" + text + ("\n\n" + trust if trust else ""))
    (folder / "table.md").write_text(text + "\n")
    write_csv([run], folder / "table.csv")
    print(f"\nrecords: {folder}/rows-*.jsonl   table: {folder}/table.md, {folder}/table.csv")
    for figure in sorted((folder / "figures").glob("*.png")):
        print(f"figure:  {figure}")


def table(runs: Sequence[Run]) -> list[str]:
    """Markdown lines: a row per defence, a column per attack, means with 95 % intervals."""
    columns = [c for run in runs for c in run.outcomes]
    columns.sort(key=lambda c: not c.clean)
    attacks = list(dict.fromkeys((c.attack, c.eps) for c in columns))
    heads = [a if a.startswith("clean") else f"{a}, eps {eps:g}" for a, eps in attacks]
    body = [["defence", *heads, "calls", "mean t(x)", "ms / image", "seconds"]]
    for run in runs:
        prefix = f"{run.folder.name}: " if len(runs) > 1 else ""
        for row in dict.fromkeys(c.row for c in run.outcomes):
            body.append([prefix + _named(run, row), *_cells(run, row, attacks)])
    return _markdown(body)


def footnote(run: Run) -> str:
    """What the numbers of a table are."""
    data = run.identity["data"]
    images = "/".join(map(str, sorted({len(o.images) for o in run.outcomes.values()})))
    told = (
        f"Percent right: mean over {run.identity['draws']} fresh purifications of each of {images} "
        f"{data['split']} images of {data['class']}, [95 % interval over images]. calls: measured "
        "diffusion-network calls a clean prediction, score norms included; ms / image: its wall "
        "time. mean t(x) is in the row's own unit. Every image is attacked and re-scored under "
        "noise the attack never saw."
    )
    for name, block in run.identity["attacks"].items():
        if (pool := block["knowledge"]["pool"]) is not None:
            streams = ", ".join(block["knowledge"]["streams"]).lower()
            told += (
                f" Except {name}: its attacker knows the noise ({streams}) of the {pool} "
                "purification(s) it is scored on, and its clean column is scored on the same."
            )
    return told


def separations(run: Run) -> list[str]:
    """For each row with score norms, how well they tell attacked images from clean ones (AUC)."""
    lines = []
    for column, outcome in run.outcomes.items():
        clean = run.outcomes[Column(column.row)].score_norm.ravel()
        attacked = outcome.score_norm.ravel()
        if not column.clean and np.isfinite(attacked).all():
            truth = np.repeat([0, 1], [len(clean), len(attacked)])
            auc = roc_auc_score(truth, np.concatenate([clean, attacked]))
            lines.append(f"{column}: score norms tell attacked from clean with AUC {auc:.4f}")
    return lines


def cosines(run: Run) -> list[str]:
    """For each block that was asked, how well its gradient points along the exact one."""
    lines = []
    for column, outcome in run.outcomes.items():
        known = outcome.cosine[np.isfinite(outcome.cosine)]
        if len(known) > 1:
            lines.append(
                f"{column}: cosine of its gradient to the exact one {known.mean():.3f} "
                f"(standard error {stats.sem(known):.3f}, {len(known)} images)"
            )
    return lines


def paired(run: Run, against: str) -> list[str]:
    """Markdown lines: each row minus `against`, on the same images and evaluation keys."""
    rows = list(dict.fromkeys(c.row for c in run.outcomes))
    if against not in rows:
        raise ConfigError(f"{run.folder} has no row {against!r}; there is: {', '.join(rows)}")
    body = [["difference", "attack", "points"]]
    for column, outcome in run.outcomes.items():
        other = run.outcomes.get(column._replace(row=against))
        if column.row != against and other is not None:
            same = np.isin(outcome.images, other.images), np.isin(other.images, outcome.images)
            found = paired_difference(outcome.correct[same[0]], other.correct[same[1]])
            attack = column.attack if column.clean else f"{column.attack}, eps {column.eps:g}"
            body.append([f"{column.row} - {against}", attack, str(found)])
    return _markdown(body)


def write_csv(runs: Iterable[Run], file: Path) -> None:
    """Every estimand of every column, one line each."""
    lines = [
        {"run": run.folder.name, "row": c.row, "attack": c.attack, "eps": c.eps}
        | outcome.summary()
        | {"seconds": run.seconds.get(c, 0.0)}
        for run in runs
        for c, outcome in run.outcomes.items()
    ]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, lines[0].keys())
        writer.writeheader()
        writer.writerows(lines)


def _cells(run: Run, row: str, attacks: list[tuple[str, float]]) -> list[str]:
    cells = []
    for attack, eps in attacks:
        outcome = run.outcomes.get(Column(row, attack, eps))
        cells.append(_cell(outcome, run.identity["data"]["images"]))
    clean = run.outcomes[Column(row)].summary()
    level = "-" if clean["t_mean"] != clean["t_mean"] else f"{clean['t_mean']:.3g}"
    seconds = sum(v for c, v in run.seconds.items() if c.row == row)
    once = 1000 * run.seconds.get(Column(row), 0.0) / (clean["images"] * clean["draws"])
    return [*cells, f"{clean['nfe']:.1f}", level, f"{once:.1f}", f"{seconds:.0f}"]


def _named(run: Run, row: str) -> str:
    """A row whose prediction is several purifications says so."""
    ensemble = run.identity["defenses"][row].get("ensemble", {})
    votes = ensemble.get("votes", 1)
    return row if votes == 1 else f"{row} ({ensemble['class']} of {votes})"


def _cell(outcome: Outcome | None, images: int) -> str:
    if outcome is None:
        return "-"
    part = f" (n = {len(outcome.images)})" if len(outcome.images) < images else ""
    return f"{mean_accuracy(outcome.correct)}{part}"


def _markdown(body: list[list[str]]) -> list[str]:
    widths = [max(len(line[k]) for line in body) for k in range(len(body[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in body
    ]
    return [lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]]
