"""Curves."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from adpur.papers.charts.style import CHART_STYLE, looks, sheet
from adpur.report.draw.plots import Series, curve, legend, ticks


class Plot(NamedTuple):
    """Curves over one pair of axes."""

    xlabel: str
    ylabel: str
    series: Sequence[Series]
    log: bool = False
    log_y: bool = False


def panels(plots: Sequence[Plot], height: float = 1.9) -> Figure:
    """Plots below each other; a name looks the same in all of them, one legend for all."""
    with mpl.rc_context(CHART_STYLE):
        figure = sheet(height * len(plots) + 0.3)
        known = looks(one.name for plot in plots for one in plot.series)
        for axes, plot in zip(figure.subplots(len(plots), squeeze=False)[:, 0], plots, strict=True):
            for one in plot.series:
                curve(axes, one, *known[one.name])
            axes.set(xlabel=plot.xlabel, ylabel=plot.ylabel)
            if plot.log_y:
                axes.set_yscale("log")
            ticks(axes, [x for one in plot.series for x in one.x], plot.log)
        legend(figure, figure.axes)
    return figure
