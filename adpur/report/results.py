"""`results.json`: what a leaderboard or a paper would quote, in RobustBench's words and ours.

One file for a run, one entry for each row and threat: a reader loads the whole table at once, row
names need no escaping, and an entry alone is what RobustBench keeps as one model's file.
"""

from typing import Any

from adpur.judging.arithmetic import Computed
from adpur.judging.scoreboard import Column, Outcome
from adpur.judging.statistics import Estimate
from adpur.judging.threats import Threat, by_threat, union_of
from adpur.report.markdown import radius
from adpur.report.published import of_row
from adpur.report.run import Run

AUTOATTACK = ("APGD", "APGD", "FAB", "Square")
"""The members of an ensemble that may be called AutoAttack (its `standard`)."""


def results(run: Run) -> list[dict[str, Any]]:
    """Entries of a run: accuracies are percent strings with two decimals, as RobustBench's are."""
    entries = []
    for row in run.rows:
        found = by_threat(run.outcomes, run.identity["attacks"], row)
        for danger, columns in found.items():
            entries.append(_common(run, row) | _attacked(run, row, danger, columns))
        if not found:
            entries.append(_common(run, row))
    return entries


def _common(run: Run, row: str) -> dict[str, Any]:
    """What does not depend on the attack."""
    identity, clean = run.identity, run.outcomes[Column(row)]
    told = clean.estimates()["acc"]
    entry = {
        "name": row,
        "dataset": identity["data"]["class"],
        "split": identity["data"]["split"],
        "n_images": len(clean.images),
        "images_sha256": identity["data"]["sha256"],
        "architecture": run.about.get("architectures", {}).get(row),
        "weights": {k.lstrip("_"): v for k, v in identity["networks"][row].items()},
        "defense": identity["defenses"][row],
        "number_forward_passes": float(clean.nfe.mean()),
        "clean_acc": percent(told.value),
        "estimand": "mean over evaluation draws",
        "n_eval": identity["draws"],
        "seed": identity["seed"],
        "ci95": {"clean_acc": interval(told)},
        "estimands": {"clean": estimands(clean)},
        "seconds": {"clean": run.seconds.get(Column(row), 0.0)},
        "versions": identity["versions"],
        "arithmetic": _arithmetic(run.computed(row)),
        "identity_sha256": run.sha256,
    }
    return entry | of_row(run, row) | _trust(run, row)


def _arithmetic(computed: Computed) -> dict[str, Any]:
    """How many images each machine's arithmetic computed, and what a reader must be told of it."""
    return {"images": computed.images, "marks": list(computed.marks), "mixed": computed.mixed}


def _attacked(run: Run, row: str, danger: Threat, columns: list[Column]) -> dict[str, Any]:
    """What one threat adds: the union is the robust accuracy where several attacks were run."""
    united = union_of(row, danger, run.identity["attacks"])
    shown = {c: run.outcomes[c] for c in columns}
    shown |= {united: run.unions[united]} if united in run.unions else {}
    column, best = list(shown.items())[-1]
    told, common = best.estimates()["acc"], _common(run, row)
    entry = {
        "threat_model": danger.norm,
        "eps": radius(danger.eps),
        "knowledge": danger.knowledge,
        "robust_acc": percent(told.value),
        "robust_acc_of": column.attack,
        "ci95": common["ci95"] | {"robust_acc": interval(told)},
        "estimands": common["estimands"] | {c.attack: estimands(o) for c, o in shown.items()},
        "attacks": {c.attack: _attack(run, c) for c in columns},
        "seconds": common["seconds"] | {c.attack: run.seconds.get(c, 0.0) for c in columns},
    }
    if standard := [c for c in columns if _is_autoattack(_described(run, c))]:
        entry["autoattack_acc"] = percent(run.outcomes[standard[0]].estimates()["acc"].value)
    return entry


def _attack(run: Run, column: Column) -> dict[str, Any]:
    """How a block searched, what it asked per image, and what it was told."""
    block, described = run.identity["attacks"][column.attack], _described(run, column)
    outcome = run.outcomes[column]
    told = {
        "attack": described,
        "gradient_mode": block["gradient"],
        "levels": block["levels"],
        "eot": described.get("eot"),
        "pools": block["knowledge"]["seeds"],
        "gradient_rows": _mean([s.gradients for s in outcome.scores]),
        "queries": _mean([s.queries for s in outcome.scores]),
    }
    claimed = outcome.estimates().get("claimed")
    return told | ({"claimed_acc": percent(claimed.value)} if claimed is not None else {})


def _described(run: Run, column: Column) -> dict[str, Any]:
    attacks = run.identity["attacks"][column.attack]["attacks"]
    found: dict[str, Any] = next(a for a in attacks if a["eps"] == column.eps)
    return found


def _is_autoattack(described: dict[str, Any]) -> bool:
    members = described.get("attacks", [])
    return tuple(member["class"] for member in members) == AUTOATTACK


def _trust(run: Run, row: str) -> dict[str, Any]:
    """Verdicts, and RobustBench's `unreliable`; nothing where no trust report was made."""
    if not run.trust.findings:
        return {}
    mine = [f for f in run.trust.findings if f.row == row]
    verdicts = [{"check": f.check, "attack": f.attack, "verdict": f.grade} for f in mine]
    trust = {"level": run.trust.level, "verdicts": verdicts}
    return {"trust": trust, "unreliable": bool(run.warnings(row))}


def estimands(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """Every estimand of a column with its interval; a claim is no estimand."""
    return {
        name: {"value": percent(e.value), "ci95": interval(e)}
        for name, e in outcome.estimates().items()
        if name != "claimed"
    }


def interval(estimate: Estimate) -> list[str]:
    """Its ends as percent strings."""
    return [percent(estimate.low), percent(estimate.high)]


def percent(share: float) -> str:
    """RobustBench's form.

    >>> percent(0.70694)
    '70.69'
    """
    return f"{100 * share:.2f}"


def _mean(values: list[int]) -> float:
    return sum(values) / len(values)
