"""Images in rows and columns, and bars beneath the columns."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from adpur.judging.statistics import Estimate
from adpur.papers.charts.style import CHART_STYLE, sheet
from adpur.report.draw.figures import COLUMN_WIDTH, FILLS, pixels
from adpur.report.draw.plots import INK, legend

TILE = 0.58
"""Inches."""


class Tile(NamedTuple):
    """An image `(C, H, W)` in [0, 1], what stands below it, and whether it counts as right."""

    image: Tensor
    note: str = ""
    right: bool | None = None


class Strip(NamedTuple):
    """A line of tiles after a name; None leaves a place empty."""

    name: str
    tiles: Sequence[Tile | None]


class Counts(NamedTuple):
    """Under every column but the first, in per cent: a bar, and a point with its interval."""

    bars: Sequence[float]
    bar_name: str
    points: Sequence[Estimate]
    point_name: str
    title: str


def strips(lines: Sequence[Strip], heads: Sequence[str], xlabel: str, counts: Counts) -> Figure:
    """Right has a full frame and a tick, wrong a dotted frame and a cross."""
    columns = len(heads)
    with mpl.rc_context(CHART_STYLE | {"axes.grid": False}):
        width = max(COLUMN_WIDTH, TILE * columns + 0.9)
        figure = sheet((TILE + 0.13) * len(lines) + 2.0, width)
        ratios = [TILE + 0.13] * len(lines) + [1.3]
        grid = figure.add_gridspec(len(lines) + 1, columns, height_ratios=ratios)
        for k, line in enumerate(lines):
            for c, tile in enumerate(line.tiles):
                axes = figure.add_subplot(grid[k, c])
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                if tile is not None:
                    _tile(axes, tile)
                if c == 0:
                    axes.set_ylabel(line.name, rotation=0, ha="right", va="center", fontsize=6.5)
                if k == 0:
                    axes.set_title(heads[c], fontsize=7)
        name = figure.add_subplot(grid[len(lines), 0])
        name.axis("off")
        name.text(1, 0.5, "% of\nimages", ha="right", va="center")
        below = figure.add_subplot(grid[len(lines), 1:])
        _counts(below, counts, heads[1:], xlabel)
        legend(figure, [below])
    return figure


def _tile(axes: Axes, tile: Tile) -> None:
    axes.imshow(pixels(tile.image), cmap="gray", vmin=0, vmax=1)
    mark = {None: "", True: "✓ ", False: "✗ "}[tile.right]
    axes.set_xlabel(f"{mark}{tile.note}", fontsize=6.5, labelpad=1.5)
    if tile.right is None:
        return
    axes.spines[:].set(
        visible=True, linewidth=2.2, color="#4c72b0" if tile.right else "#c44e52",
        linestyle="-" if tile.right else ":",
    )  # fmt: skip


def _counts(axes: Axes, counts: Counts, heads: Sequence[str], xlabel: str) -> None:
    places = np.arange(len(heads))
    color, hatch = FILLS[0]
    axes.bar(
        places, counts.bars, 0.6, color=color, hatch=hatch, edgecolor="black", linewidth=0.5,
        label=counts.bar_name,
    )  # fmt: skip
    value, low, high = 100 * np.array(counts.points).T
    axes.errorbar(
        places, value, yerr=np.maximum([value - low, high - value], 0), color=INK, marker="o",
        markersize=3.5, linewidth=0.9, linestyle="--", label=counts.point_name,
    )  # fmt: skip
    axes.set(xlabel=xlabel, xlim=(-0.5, len(heads) - 0.5), ylim=(0, 105))
    axes.set_xticks(places, heads)
    axes.set_title(counts.title, fontsize=7, loc="left")
