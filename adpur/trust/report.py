"""The checks of a run, on disk and as a table."""

import json
import time
from collections.abc import Iterable
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from adpur.trust.finding import (
    Check,
    Evidence,
    Finding,
    Grade,
    Level,
    Probe,
    Review,
)
from adpur.trust.probes import PROBES
from adpur.trust.recorded import RECORDED
from adpur.trust.retried import RETRIED

ORDER = [Grade.INFO, Grade.PASS, Grade.WARN, Grade.FAIL]


def probes(level: Level) -> list[Probe]:
    """The checks before a run."""
    return [check for check in PROBES if _asked(check, level)]


def reviews(level: Level) -> list[Review]:
    """The checks after a run."""
    return [check for check in (*RECORDED, *RETRIED) if _asked(check, level)]


class Findings:
    """What the checks said of the run a folder holds; each process appends to a file of its own."""

    def __init__(self, folder: Path, level: Level = Level.QUICK) -> None:
        self.folder, self.level = folder, level
        self.file = folder / f"trust-{uuid4().hex[:12]}.jsonl"
        self.identity = json.loads((folder / "manifest.json").read_text())["sha256"]

    def add(self, finding: Finding, seconds: float) -> None:
        """Append a finding and what it cost."""
        entry = finding.as_dict() | {"seconds": seconds, "level": self.level}
        entry |= {"at": time.time(), "identity": self.identity}
        with self.file.open("a") as stream:
            stream.write(json.dumps(entry) + "\n")

    def knows(self, check: Check, seen: Evidence) -> bool:
        """Whether an earlier session asked; what failed is asked again, as it may be mended."""
        grade = self.earlier.get((check.check, seen.row, seen.block))
        return grade is not None and grade != Grade.FAIL

    @cached_property
    def earlier(self) -> dict[tuple[str, str, str], str]:
        """What was last said of every check and case when this session first asked; read once."""
        return {(e["check"], e["row"], e["attack"]): e["grade"] for e in self.entries()}

    def entries(self) -> list[dict[str, Any]]:
        """Everything every process wrote of this identity, oldest first."""
        files = self.folder.glob("trust-*.jsonl")
        parsed = [_parsed(line) for file in files for line in file.read_text().splitlines()]
        mine = [e for e in parsed if e is not None and e["identity"] == self.identity]
        return sorted(mine, key=lambda entry: entry["at"])


class Report(NamedTuple):
    """The findings of a run, each once, sorted by check; of level `none` where none were made."""

    level: Level
    seconds: float
    findings: list[Finding]

    def lines(self, run_seconds: float) -> list[str]:
        """A heading with what it cost, then the table; nothing where nothing was asked."""
        if self.level is Level.NONE:
            return []
        share = self.seconds / max(run_seconds, 1e-9)
        cost = f"{self.seconds:.0f} s, {share:.0%} of the run's {run_seconds:.0f} s"
        return [f"trust report ({self.level}, {cost})", "", *table(self.findings)]


def read_report(folder: Path) -> Report:
    """The trust report of a run folder."""
    entries = Findings(folder).entries()
    found = {(f.check, f.row, f.attack): f for f in map(_finding, entries)}
    return Report(
        _answered(found),
        sum(entry["seconds"] for entry in entries),
        sorted(found.values(), key=lambda f: (_number(f.check), f.row, f.attack)),
    )


def _answered(found: Iterable[tuple[str, str, str]]) -> Level:
    """The level of which every check of every case has an answer; less than quick is quick."""
    answers = list(found)
    cases = {(row, attack) for _, row, attack in answers}
    wanted = {(c.check, *case) for c in (*PROBES, *RECORDED, *RETRIED) for case in cases}
    whole = Level.FULL if wanted <= set(answers) else Level.QUICK
    return whole if answers else Level.NONE


def table(found: Iterable[Finding]) -> list[str]:
    """One line a check: its worst answer, then what each bad one means and what to do."""
    by_check: dict[str, list[Finding]] = {}
    for finding in found:
        by_check.setdefault(finding.check, []).append(finding)
    worst = {c: max(fs, key=lambda f: ORDER.index(f.grade)) for c, fs in by_check.items()}
    lines = ["| check | | measured (worst of the cases) | |", "|---|---|---|---|"]
    for check, one in worst.items():
        counts = f"{one.row} / {one.attack}; {len(by_check[check])} case(s)"
        lines.append(f"| {check} {one.title} | {one.grade} | {one.measured} | {counts} |")
    bad = [f for fs in by_check.values() for f in fs if f.warns]
    told = [
        f"{f.grade}: {f.check} {f.title}, {f.row} / {f.attack}: {f.measured}. {f.means}. "
        f"To do: {f.advice}."
        for f in bad
    ]
    return [*lines, "", *told] if told else lines


def _asked(check: Check, level: Level) -> bool:
    return level is Level.FULL or level is check.level


def _parsed(line: str) -> dict[str, Any] | None:
    """An entry, or None for one torn by a kill; it is asked again."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry


def _finding(entry: dict[str, Any]) -> Finding:
    own = {f.name: entry[f.name] for f in fields(Finding)}
    return Finding(**own | {"grade": Grade(entry["grade"])})


def _number(check: str) -> tuple[int, str]:
    digits = "".join(c for c in check if c.isdigit())
    return int(digits), check
