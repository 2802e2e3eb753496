"""What the papers print, beside what a run of the same table found."""

import csv
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from adpur import shipped
from adpur.judging.scoreboard import Column
from adpur.judging.statistics import wilson
from adpur.report.markdown import markdown
from adpur.report.run import Run

EXPECTED = "expected.csv"
HEAD = ["row", "column", "paper", "ours", "difference"]
NOTE = (
    "paper: as printed, +- its deviation over runs. ours: the estimand the paper means, [95 % "
    "interval over images]. A difference is `outside` where it is more than both intervals allow, "
    "the paper's being Wilson's for its number of images; seconds are of another machine."
)


class Cell(NamedTuple):
    """A number printed in a paper: percent, but for the estimands `seconds` and `fid`.

    Attributes:
        row: the defence, as the table's config names it.
        column: the attack block, or a clean column.
        estimand: which number of ours it is: acc, mean_logits, claimed; seconds an image; fid.
        spread: its printed deviation, 0 where there is none.
        images: it was measured on; 0 where that is not said.
    """

    row: str
    column: str
    estimand: str
    value: float
    spread: float
    images: int

    @property
    def half(self) -> float:
        """Half of its 95 % interval over images, in points; NaN without a number of images."""
        if not self.images:
            return math.nan
        found = wilson(round(self.value / 100 * self.images), self.images)
        return 50 * (found.high - found.low)

    def __str__(self) -> str:
        return f"{self.value:g}" + (f" +- {self.spread:g}" if self.spread else "")


class Beside(NamedTuple):
    """A printed cell and ours: value and half of the interval, in the cell's unit."""

    cell: Cell
    ours: float
    half: float
    text: str

    @property
    def difference(self) -> float:
        """Ours minus the paper's."""
        return self.ours - self.cell.value

    @property
    def tolerance(self) -> float:
        """What both intervals allow; NaN where one is unknown."""
        return math.hypot(self.half, self.cell.half)

    def cells(self) -> list[str]:
        """Of the printed table."""
        told = f"{self.difference:+.2f}"
        if not math.isnan(self.tolerance):
            outside = abs(self.difference) > self.tolerance
            told += f" (outside {self.tolerance:.1f})" if outside else f" (of {self.tolerance:.1f})"
        named = self.cell.column + (
            "" if self.cell.estimand == "acc" else f", {self.cell.estimand}"
        )
        return [self.cell.row, named, str(self.cell), self.text, told]

    def as_dict(self) -> dict[str, Any]:
        """For `results.json`."""
        known = not math.isnan(self.tolerance)
        return {
            "attack": self.cell.column,
            "estimand": self.cell.estimand,
            "paper": self.cell.value,
            "ours": round(self.ours, 4),
            "difference": round(self.difference, 4),
            "tolerance": round(self.tolerance, 2) if known else None,
        }


def expected(table: str) -> list[Cell]:
    """The printed cells of a table, `ssni-table4` for example; none where all were lost."""
    with (shipped.shipped_papers() / EXPECTED).open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    return [_cell(line) for line in lines if f"{line['paper']}-{line['table']}" == table]


def beside(run: Run) -> list[Beside]:
    """Every printed cell of the table this run repeats that the run has too."""
    table = run.about.get("table")
    found = (_ours(run, cell) for cell in (expected(table) if table else []))
    return [one for one in found if one is not None]


def comparison(run: Run) -> list[str]:
    """Markdown lines: ours beside the paper's; none where the run repeats no table."""
    cells = [one.cells() for one in beside(run)]
    if not cells:
        return []
    return ["", f"Beside {run.about['table']}:", "", *markdown([HEAD, *cells]), "", NOTE]


def of_row(run: Run, row: str) -> dict[str, Any]:
    """What `results.json` says of a row's printed cells, if it has any."""
    told = [one.as_dict() for one in beside(run) if one.cell.row == row]
    return {"published": {"table": run.about["table"], "cells": told}} if told else {}


def _cell(line: dict[str, str]) -> Cell:
    return Cell(
        line["row"], line["column"], line["estimand"], float(line["value"]),
        float(line["spread"] or 0), int(line["images"] or 0),
    )  # fmt: skip


def _ours(run: Run, cell: Cell) -> Beside | None:
    column = next(_columns(run, cell), None)
    if column is None:
        return None
    outcome = run.columns[column]
    if cell.estimand == "seconds":
        spent = run.seconds.get(column, math.nan) / outcome.predictions.size
        return Beside(cell, spent, math.nan, f"{spent:.4f}")
    told = outcome.estimates().get(cell.estimand)
    if told is None:
        return None
    return Beside(cell, 100 * told.value, 50 * (told.high - told.low), str(told))


def _columns(run: Run, cell: Cell) -> Iterator[Column]:
    return (c for c in run.columns if (c.row, c.attack) == (cell.row, cell.column))
