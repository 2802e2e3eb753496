"""Curves along the reverse process."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adpur.papers.charts.style import CHART_STYLE, looks, sheet
from adpur.report.draw.plots import Series, legend


class Descent(NamedTuple):
    """A curve with its quartiles from t* down to 0, and the value before the first state."""

    curve: Series
    before: float


def descents(panels: Mapping[str, Sequence[Descent]], before: str) -> Figure:
    """A panel for each label, below each other, t falling to the right.

    What each curve comes from stands hollow on the left, at the tick `before`.
    """
    with mpl.rc_context(CHART_STYLE):
        figure = sheet(1.6 * len(panels) + 0.5)
        known = looks(one.curve.name for drawn in panels.values() for one in drawn)
        start = max(t for drawn in panels.values() for one in drawn for t in one.curve.x)
        stacked = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for axes, (label, drawn) in zip(stacked, panels.items(), strict=True):
            for one in drawn:
                _drawn(axes, one, *known[one.curve.name], place=1.2 * start)
            axes.set_ylabel(label)
            if min(min(one.curve.low) for one in drawn) < 0:
                axes.axhline(0, color="black", linewidth=0.6)
        ticks = [start * k / 4 for k in range(5)]
        stacked[-1].set_xticks([*ticks, 1.2 * start], [*(f"{t:g}" for t in ticks), before])
        stacked[-1].set_xlabel("t")
        stacked[-1].invert_xaxis()
        legend(figure, figure.axes)
    return figure


def _drawn(axes: Axes, one: Descent, color: str, marker: str, dash: str, place: float) -> None:
    x, y = one.curve.x, one.curve.y
    axes.fill_between(x, one.curve.low, one.curve.high, color=color, alpha=0.15, linewidth=0)
    axes.plot(x, y, color=color, marker=marker, linestyle=dash, label=one.curve.name)
    axes.plot([place, x[0]], [one.before, y[0]], color=color, linestyle=":", linewidth=0.8)
    axes.plot([place], [one.before], color=color, marker=marker, markerfacecolor="none")
