"""A run folder read back: what was measured, what it is, and what the trust report says."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from adpur.errors import ConfigError
from adpur.metrics.scoreboard import Column, Outcome
from adpur.metrics.threats import unions
from adpur.records import Records


class Finding(NamedTuple):
    """One check of the trust report, in words."""

    check: str
    name: str
    row: str
    attack: str
    measured: str
    verdict: str
    means: str
    advice: str

    @property
    def warns(self) -> bool:
        """Whether it marks its row in every table."""
        return self.verdict in ("warn", "fail")


class Trust(NamedTuple):
    """The trust report of a run; level is empty where none was made."""

    level: str
    seconds: float
    findings: list[Finding]


class Run(NamedTuple):
    """A run folder read back; `unions` are derived from `outcomes`, `about` is told of networks."""

    folder: Path
    identity: dict[str, Any]
    outcomes: dict[Column, Outcome]
    seconds: dict[Column, float]
    unions: dict[Column, Outcome]
    trust: Trust
    about: dict[str, Any]
    sha256: str

    @property
    def rows(self) -> list[str]:
        """The defences, in the order of the config."""
        return list(dict.fromkeys(column.row for column in self.outcomes))

    @property
    def columns(self) -> dict[Column, Outcome]:
        """Clean, attacked and united: a row's columns stand in this order."""
        clean = {c: o for c, o in self.outcomes.items() if c.clean}
        return clean | self.outcomes | self.unions

    def warnings(self, row: str) -> list[Finding]:
        """Findings that mark a row; one without a row marks all."""
        return [f for f in self.trust.findings if f.warns and f.row in ("", row)]


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
        read_trust(folder), content.get("about", {}), content["sha256"],
    )  # fmt: skip


def read_trust(folder: Path) -> Trust:
    """The trust report beside the records, or an empty one."""
    file = folder / "trust.json"
    if not file.is_file():
        return Trust("", 0.0, [])
    content = json.loads(file.read_text())
    findings = [
        Finding(*(_text(entry.get(field)) for field in Finding._fields))
        for entry in content["findings"]
    ]
    return Trust(content["level"], float(content["seconds"]), findings)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
