"""Bars in groups."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adpur.judging.statistics import Estimate
from adpur.papers.charts.style import CHART_STYLE, sheet
from adpur.report.draw.figures import FILLS
from adpur.report.draw.plots import legend


class Bars(NamedTuple):
    """Shares with their intervals in named groups, each by name."""

    title: str
    groups: Sequence[tuple[str, Mapping[str, Estimate]]]
    xlabel: str = ""


def bars(plots: Sequence[Bars], ylabel: str) -> Figure:
    """Plots of percentages below each other; a name has one fill and hatch in all of them."""
    names = dict.fromkeys(name for plot in plots for _, group in plot.groups for name in group)
    fills = dict(zip(names, cycle(FILLS), strict=False))
    with mpl.rc_context(CHART_STYLE | {"hatch.linewidth": 0.6}):
        figure = sheet(1.9 * len(plots) + 0.3)
        for axes, plot in zip(figure.subplots(len(plots), squeeze=False)[:, 0], plots, strict=True):
            for place, (_, group) in enumerate(plot.groups):
                _group(axes, place, group, fills)
            labels = [name.replace(" ", "\n") for name, _ in plot.groups]
            axes.set_xticks(range(len(labels)), labels)
            axes.set(title=plot.title, xlabel=plot.xlabel, ylabel=ylabel, ylim=(0, 102))
            axes.grid(axis="x", visible=False)
        legend(figure, figure.axes)
    return figure


def _group(
    axes: Axes, place: int, group: Mapping[str, Estimate], fills: Mapping[str, tuple[str, str]]
) -> None:
    """Bars about `place`, each with its arms."""
    width = 0.84 / len(fills)
    for k, (name, fill) in enumerate(fills.items()):
        if name in group:
            value, low, high = (100 * v for v in group[name])
            axes.bar(
                place + (k - (len(fills) - 1) / 2) * width, value, width, color=(fill[0], 0.6),
                hatch=fill[1], edgecolor="black", linewidth=0.5, label=name,
                yerr=[[max(value - low, 0)], [max(high - value, 0)]],
                error_kw={"linewidth": 0.8, "capsize": 1.5},
            )  # fmt: skip
