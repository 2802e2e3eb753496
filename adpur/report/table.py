"""Finished runs as tables, from their records alone."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from adpur.judging.scoreboard import Column, Outcome
from adpur.report.markdown import label, markdown
from adpur.report.published import comparison
from adpur.report.quote import quotes
from adpur.report.results import results
from adpur.report.run import Run, read_run

DAGGER = "†"


def show_run(folder: Path) -> None:
    """Print a run's table and where everything is, and write the tables beside the records."""
    run = read_run(folder)
    text = "\n".join([*table([run]), "", *notes(run), *comparison(run)])
    text = "\n".join([text, "", *run.trust.lines(sum(run.seconds.values()))]).rstrip()
    print("\n" + text)
    write_tables([run], text, folder)
    print(
        f"\nrecords: {folder}/rows-*.jsonl   table: {folder}/table.md, {folder}/table.csv, "
        f"{folder}/results.json"
    )
    for figure in sorted((folder / "figures").glob("*.png")):
        print(f"figure:  {figure}")


def write_tables(runs: Sequence[Run], text: str, folder: Path) -> None:
    """The table as Markdown, every estimand as CSV, and the results as JSON."""
    (folder / "table.md").write_text(text + "\n")
    write_csv(runs, folder / "table.csv")
    told = [entry for run in runs for entry in results(run)]
    (folder / "results.json").write_text(json.dumps(told, indent=1) + "\n")


def table(runs: Sequence[Run]) -> list[str]:
    """Markdown lines: a row per defence, a column per attack, means with 95 % intervals."""
    return markdown(wide(runs))


def wide(runs: Sequence[Run]) -> list[list[str]]:
    """The cells of `table`, head first; a dagger marks the rows the trust report warns of."""
    columns = [c for run in runs for c in run.columns]
    columns.sort(key=lambda c: (not c.clean, any(c in run.unions for run in runs)))
    attacks = list(dict.fromkeys((c.attack, c.eps) for c in columns))
    heads = [label(Column("", attack, eps)) for attack, eps in attacks]
    body = [["defence", *heads, "calls", "mean t(x)", "ms / image", "seconds"]]
    for run in runs:
        prefix = f"{run.folder.name}: " if len(runs) > 1 else ""
        body += [[prefix + named(run, row), *_cells(run, row, attacks)] for row in run.rows]
    return body


def notes(run: Run) -> list[str]:
    """Everything said below a table."""
    told = [*quotes(run), *warnings(run), *claims(run), *separations(run), *cosines(run)]
    return [footnote(run), *run.computed().marks, *told]


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
    if run.unions:
        told += (
            " union: of each image, the attack (or, under fresh noise, none) that the selection "
            "draws found strongest, scored on the evaluation draws, which chose nothing."
        )
    for name, block in run.identity["attacks"].items():
        if (pool := block["knowledge"]["pool"]) is not None:
            streams = ", ".join(block["knowledge"]["streams"]).lower()
            told += (
                f" Except {name}: its attacker knows the noise ({streams}) of the {pool} "
                "purification(s) it is scored on, and its clean column is scored on the same."
            )
    return told


def warnings(run: Run) -> list[str]:
    """For each marked row, what the trust report warns of."""
    lines = []
    for row in run.rows:
        told = dict.fromkeys(f"{f.check} {f.title} ({f.grade})" for f in run.warnings(row))
        if told:
            lines.append(f"{DAGGER} {row}: the trust report says {', '.join(told)}")
    return lines


def claims(run: Run) -> list[str]:
    """What attacks report of themselves, beside what was measured of the same images."""
    lines = []
    for column, outcome in run.outcomes.items():
        told = outcome.estimates()
        if "claimed" in told:
            lines.append(f"{column}: claims {told['claimed']} itself; measured {told['acc']}")
    return lines


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


def write_csv(runs: Iterable[Run], file: Path) -> None:
    """Every estimand of every column and union, one line each."""
    lines = [
        {"run": run.folder.name, "row": c.row, "attack": c.attack, "eps": c.eps}
        | outcome.summary()
        | {"seconds": run.seconds.get(c, 0.0), "warnings": len(run.warnings(c.row))}
        | {"arithmetic": str(run.computed(c.row))}
        for run in runs
        for c, outcome in run.columns.items()
    ]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(dict.fromkeys(k for line in lines for k in line)))
        writer.writeheader()
        writer.writerows(lines)


def named(run: Run, row: str) -> str:
    """A row whose prediction is several purifications says so; a dagger is a warning."""
    ensemble: dict[str, Any] = run.identity["defenses"][row].get("ensemble", {})
    votes = ensemble.get("votes", 1)
    told = row if votes == 1 else f"{row} ({ensemble['class']} of {votes})"
    return f"{told} {DAGGER}" if run.warnings(row) else told


def _cells(run: Run, row: str, attacks: list[tuple[str, float]]) -> list[str]:
    images, columns = run.identity["data"]["images"], run.columns
    cells = [_cell(columns.get(Column(row, attack, eps)), images) for attack, eps in attacks]
    clean = run.outcomes[Column(row)].summary()
    level = "-" if clean["t_mean"] != clean["t_mean"] else f"{clean['t_mean']:.3g}"
    seconds = sum(v for c, v in run.seconds.items() if c.row == row)
    once = 1000 * run.seconds.get(Column(row), 0.0) / (clean["images"] * clean["draws"])
    return [*cells, f"{clean['nfe']:.1f}", level, f"{once:.1f}", f"{seconds:.0f}"]


def _cell(outcome: Outcome | None, images: int) -> str:
    if outcome is None:
        return "-"
    part = f" (n = {len(outcome.images)})" if len(outcome.images) < images else ""
    return f"{outcome.estimates()['acc']}{part}"
