"""Surfaces over a plane."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adpur.papers.charts.style import CHART_STYLE, looks, sheet
from adpur.report.draw.figures import COLUMN_WIDTH
from adpur.report.draw.plots import legend

SHADES = "YlOrBr"
"""High is dark, in grey too."""


class Track(NamedTuple):
    """A walk over a plane: places, and the height at each."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    z: Sequence[float]


class Surface(NamedTuple):
    """Heights `(len(y), len(x))` over a grid, and walks over it."""

    title: str
    x: Sequence[float]
    y: Sequence[float]
    z: NDArray[np.float64]
    tracks: Sequence[Track]


def surfaces(shown: Sequence[Surface], labels: tuple[str, str], height: str) -> Figure:
    """Contours beside each other, on one scale; `labels` of the axes across and up."""
    top = max(float(one.z.max()) for one in shown)
    low = min(float(one.z.min()) for one in shown)
    levels = np.linspace(low, top if top > low else low + 1, 13)
    known = looks(track.name for one in shown for track in one.tracks)
    with mpl.rc_context(CHART_STYLE | {"axes.grid": False}):
        figure = sheet(2.9, max(COLUMN_WIDTH, 2.3 * len(shown) + 0.5))
        plots = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
        for axes, one in zip(plots, shown, strict=True):
            filled = axes.contourf(one.x, one.y, one.z, levels, cmap=SHADES, alpha=0.85)
            axes.contour(one.x, one.y, one.z, levels, colors="#555555", linewidths=0.4)
            for track in one.tracks:
                _walk(axes, track, *known[track.name])
            axes.set(title=one.title, xlabel=labels[0])
        plots[0].set_ylabel(labels[1])
        figure.colorbar(filled, ax=plots.tolist(), label=height, format="%.2g")
        legend(figure, [plots[0]])
    return figure


def _walk(axes: Axes, track: Track, color: str, marker: str, dash: str) -> None:
    axes.plot(
        track.x, track.y, color="black", marker=marker, linestyle=dash, linewidth=1.0,
        markerfacecolor=color, markeredgecolor="white", markeredgewidth=0.5, label=track.name,
    )  # fmt: skip
