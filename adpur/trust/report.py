"""The checks of a run, on disk and as a table."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from adpur.trust.finding import (
    Case,
    Check,
    Finding,
    Grade,
    Level,
    Probe,
    Record,
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


def examine(case: Case, record: Record, checks: Iterable[Probe | Review]) -> list[Finding]:
    """Some checks of one case, without a run folder."""
    return [
        check.found(
            case, check.probe(case) if isinstance(check, Probe) else check.review(case, record)
        )
        for check in checks
    ]


class Findings:
    """What the checks of one run folder said; each process appends to its own file."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.file = folder, folder / f"trust-{rank}.jsonl"

    def add(self, finding: Finding, seconds: float) -> None:
        """Append a finding and what it cost."""
        with self.file.open("a") as stream:
            stream.write(json.dumps(finding.as_dict() | {"seconds": seconds}) + "\n")

    def read(self) -> tuple[list[Finding], float]:
        """Every finding once, sorted by check, and the seconds spent on all of them."""
        entries = list(self._entries())
        seconds = sum(entry.pop("seconds") for entry in entries)
        found = {(e["check"], e["row"], e["attack"]): Finding(**e) for e in map(_graded, entries)}
        return sorted(found.values(), key=lambda f: (_number(f.check), f.row, f.attack)), seconds

    def knows(self, check: Check, case: Case) -> bool:
        """Whether this was asked in an earlier session."""
        asked = (check.check, case.row, case.block)
        return any((e["check"], e["row"], e["attack"]) == asked for e in self._entries())

    def write(self, level: Level, run_seconds: float) -> None:
        """Put `trust.json` beside the records: what was found, and what it cost."""
        found, seconds = self.read()
        content = {
            "level": level,
            "seconds": seconds,
            "run_seconds": run_seconds,
            "findings": [finding.as_dict() for finding in found],
        }
        (self.folder / "trust.json").write_text(json.dumps(content, indent=1) + "\n")

    def _entries(self) -> Iterator[dict[str, Any]]:
        for file in sorted(self.folder.glob("trust-*.jsonl")):
            for line in file.read_text().splitlines():
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    continue  # torn by a kill; asked again


def lines(folder: Path) -> list[str]:
    """The report of a finished run as text; none, if it has none."""
    file = folder / "trust.json"
    if not file.is_file():
        return []
    content = json.loads(file.read_text())
    spent, run = content["seconds"], content["run_seconds"]
    share = f", {spent / run:.0%} of the run's {run:.0f} s" if run else ""
    found = [Finding(**_graded(entry)) for entry in content["findings"]]
    return [f"trust report ({content['level']}, {spent:.0f} s{share})", "", *table(found)]


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
    bad = [f for fs in by_check.values() for f in fs if f.grade in (Grade.WARN, Grade.FAIL)]
    told = [
        f"{f.grade}: {f.check} {f.title}, {f.row} / {f.attack}: {f.measured}. {f.means}. "
        f"To do: {f.advice}."
        for f in bad
    ]
    return [*lines, "", *told] if told else lines


def _asked(check: Check, level: Level) -> bool:
    return level is Level.FULL or level is check.level


def _graded(entry: dict[str, Any]) -> dict[str, Any]:
    return entry | {"grade": Grade(entry["grade"])}


def _number(check: str) -> tuple[int, str]:
    digits = "".join(c for c in check if c.isdigit())
    return int(digits), check
