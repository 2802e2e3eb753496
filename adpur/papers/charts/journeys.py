"""Walks among points of an embedding."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adpur.papers.charts.maps import SHADES, Track
from adpur.papers.charts.style import CHART_STYLE, looks, sheet
from adpur.report.draw.plots import legend


class Journeys(NamedTuple):
    """Walks in one embedding; of one name, repetitions."""

    title: str
    tracks: Sequence[Track]


def journeys(shown: Sequence[Journeys], height: str = "loss") -> Figure:
    """A line each: the places, shaded by height, and beside them the height step by step."""
    every = [track for one in shown for track in one.tracks]
    ends = min(min(t.z) for t in every), max(max(t.z) for t in every)
    known = looks(track.name for track in every)
    with mpl.rc_context(CHART_STYLE):
        figure = sheet(2.6 * len(shown) + 0.3, 6.8)
        grid = figure.subplots(len(shown), 2, squeeze=False)
        for (left, right), one in zip(grid, shown, strict=True):
            for track in one.tracks:
                _walk(left, track, ends, *known[track.name])
                _rise(right, track, *known[track.name])
            left.set(xticks=[], yticks=[], xlabel="t-SNE", ylabel=one.title)
            right.set(xlabel="iteration", ylabel=height, ylim=(min(0, ends[0]), 1.05 * ends[1]))
            right.xaxis.set_major_locator(MaxNLocator(integer=True))
        lefts = grid[:, 0].tolist()
        figure.colorbar(lefts[0].collections[0], ax=lefts, label=height, format="%.2g")
        legend(figure, [grid[0, 1]])
    return figure


def _walk(
    axes: Axes, track: Track, ends: tuple[float, float], color: str, marker: str, dash: str
) -> None:
    axes.plot(track.x, track.y, color=color, linestyle=dash, linewidth=0.8, zorder=1)
    axes.scatter(
        track.x, track.y, 14, track.z, marker=marker, cmap=SHADES, vmin=ends[0], vmax=ends[1],
        edgecolors=color, linewidths=0.6, zorder=2,
    )  # fmt: skip


def _rise(axes: Axes, track: Track, color: str, marker: str, dash: str) -> None:
    axes.plot(
        range(len(track.z)), track.z, color=color, marker=marker, linestyle=dash, linewidth=0.9,
        markersize=3, label=track.name,
    )  # fmt: skip
