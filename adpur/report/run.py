"""A run folder read back: what was measured, what it is, and what the trust report says."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from adpur.errors import ConfigError
from adpur.judging.arithmetic import Computed
from adpur.judging.records import Records
from adpur.judging.scoreboard import Column, Outcome
from adpur.judging.threats import unions
from adpur.trust.finding import Finding
from adpur.trust.report import Report, read_report


class Run(NamedTuple):
    """A run folder read back; `unions` are derived from `outcomes`, `about` is told of networks."""

    folder: Path
    identity: dict[str, Any]
    outcomes: dict[Column, Outcome]
    seconds: dict[Column, float]
    unions: dict[Column, Outcome]
    trust: Report
    about: dict[str, Any]
    sha256: str
    records: Records

    @property
    def rows(self) -> list[str]:
        """The defences, in the order of the config."""
        return list(dict.fromkeys(column.row for column in self.outcomes))

    @property
    def columns(self) -> dict[Column, Outcome]:
        """Clean, attacked and united: a row's columns stand in this order."""
        clean = {c: o for c, o in self.outcomes.items() if c.clean}
        return clean | self.outcomes | self.unions

    def computed(self, row: str | None = None) -> Computed:
        """On whose arithmetic the images were computed, of one row or of all."""
        return self.records.computed(c for c in self.outcomes if row in (None, c.row))

    def warnings(self, row: str) -> list[Finding]:
        """Findings that mark a row."""
        return [f for f in self.trust.findings if f.warns and f.row == row]


def read_run(folder: Path) -> Run:
    """Read the records of a run folder, in the order of its rows."""
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise ConfigError(f"{folder} is not a run folder: it holds no manifest.json")
    content = json.loads(manifest.read_text())
    records, identity = Records(folder), content["identity"]
    records.read()
    declared = [Column(*column) for column in content["columns"]]
    outcomes = {c: Outcome.of(records.scores[c].values()) for c in declared if c in records.scores}
    if any(Column(row) not in outcomes for row in identity["defenses"]):
        raise ConfigError(f"{folder} has no images in every row yet; finish the run first")
    return Run(
        folder, identity, outcomes, records.seconds(), unions(outcomes, identity["attacks"]),
        read_report(folder), content.get("about", {}), content["sha256"], records,
    )  # fmt: skip
