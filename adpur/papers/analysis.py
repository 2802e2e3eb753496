"""What an analysis is: a question about the rows of a test config, a figure and a table."""

import csv
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from adpur.errors import ConfigError
from adpur.papers.subject import Subject
from adpur.report.draw.figures import save

Cell = str | int | float


class Answer(NamedTuple):
    """The numbers, as a table with a heading for each column, and their drawing."""

    heading: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    figure: Figure


class Analysis(ABC):
    """One question; its fields are the options of `adpur analyse NAME`.

    The first line of a subclass's docstring says which figure of which paper it draws.
    """

    @abstractmethod
    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """The answer for these rows, one or several."""


def write(answer: Answer, stem: Path, about: Mapping[str, Any]) -> tuple[Path, Path]:
    """The figure as STEM.png, the table as STEM.csv, and beside them STEM.json: what made them."""
    table = stem.with_name(f"{stem.name}.csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(answer.heading)
        writer.writerows(answer.rows)
    told = json.dumps(about, indent=1) + "\n"
    stem.with_name(f"{stem.name}.json").write_text(told)
    return save(answer.figure, stem.with_name(f"{stem.name}.png")), table


def only(subjects: Sequence[Subject]) -> Subject:
    """The one row of a figure that has room for no other."""
    first, *more = subjects
    if more:
        told = ", ".join(s.row for s in subjects)
        raise ConfigError(f"expected one row, got {told}; choose it by --rows")
    return first


def purifying(subjects: Sequence[Subject]) -> list[Subject]:
    """Those with a diffusion purifier."""
    found = [s for s in subjects if s.defense.purifier.depth]
    if not found:
        raise ConfigError("this analysis needs a row that purifies; --rows chose none")
    return found
