"""Curves over a quantity, and beneath them how it is distributed."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adpur.papers.charts.style import CHART_STYLE, looks, sheet
from adpur.report.draw.figures import COLUMN_WIDTH, FILLS
from adpur.report.draw.plots import INK, Series, legend

BINS, MARKERS = 40, 9


class Over(NamedTuple):
    """A column of the figure: curves, what is marked on their axis, and samples of it."""

    title: str
    curves: Sequence[Series]
    marks: Mapping[str, float]
    level: float
    samples: Mapping[str, Sequence[float]]


def curves_over_samples(columns: Sequence[Over], xlabel: str, ylabel: str) -> Figure:
    """A column each; a name looks the same in all; `level` is a thin line across."""
    with mpl.rc_context(CHART_STYLE):
        figure = sheet(3.5, COLUMN_WIDTH * len(columns))
        known = looks(one.name for column in columns for one in column.curves)
        grid = figure.subplots(
            2, len(columns), squeeze=False, sharex="col", sharey="row", height_ratios=(5, 3)
        )
        for (top, bottom), column in zip(grid.T, columns, strict=True):
            _curves(top, column, known)
            _samples(bottom, column.samples)
            top.set_title(column.title, fontsize=7, loc="left", pad=12)
            bottom.set_xlabel(xlabel)
        grid[0, 0].set_ylabel(ylabel)
        grid[1, 0].set_ylabel("share")
        legend(figure, list(grid.flat))
    return figure


def _curves(axes: Axes, column: Over, known: Mapping[str, tuple[str, str, str]]) -> None:
    for one in column.curves:
        color, marker, dash = known[one.name]
        every = max(1, len(one.x) // MARKERS)
        axes.plot(
            one.x, one.y, color=color, marker=marker, linestyle=dash, markevery=every,
            markersize=3.5, linewidth=0.9 if one.aside else 1.8, label=one.name,
        )  # fmt: skip
    axes.axhline(column.level, color=INK, linewidth=0.6)
    sides = cycle(("right", "center", "left"))
    for (name, x), side in zip(
        sorted(column.marks.items(), key=lambda m: m[1]), sides, strict=False
    ):
        axes.axvline(x, color=INK, linewidth=0.8, linestyle=":")
        axes.annotate(
            name, (x, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha=side, va="bottom", fontsize=6,
        )  # fmt: skip


def _samples(axes: Axes, samples: Mapping[str, Sequence[float]]) -> None:
    pooled = np.concatenate([np.asarray(v) for v in samples.values()])
    bins = np.linspace(pooled.min(), max(pooled.max(), pooled.min() + 1e-6), BINS + 1).tolist()
    for (name, values), (color, hatch) in zip(samples.items(), cycle(FILLS), strict=False):
        share = np.full(len(values), 1 / len(values))
        axes.hist(
            values, bins, weights=share, color=color, hatch=2 * hatch, alpha=0.7,
            edgecolor="black", linewidth=0.4, label=name,
        )  # fmt: skip
