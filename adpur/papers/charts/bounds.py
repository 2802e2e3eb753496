"""Measured shares over a dimension, on the curves that predict and bound them."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from adpur.judging.statistics import Estimate
from adpur.papers.charts.style import CHART_STYLE, looks, sheet
from adpur.report.draw.plots import INK, legend, ticks


class Bounded(NamedTuple):
    """Shares measured at some n, and the exact curve and printed bound at others."""

    name: str
    at: Sequence[float]
    measured: Sequence[Estimate]
    n: Sequence[float]
    exact: Sequence[float]
    printed: Sequence[float]


def bounds(shown: Sequence[Bounded], ylabel: str) -> Figure:
    """Hollow points with intervals on their exact curves; printed bounds thin and dotted."""
    with mpl.rc_context(CHART_STYLE):
        figure = sheet(2.7)
        axes = figure.subplots()
        known = looks(one.name for one in shown)
        for one in shown:
            color, marker, dash = known[one.name]
            axes.plot(one.n, one.exact, color=color, linestyle=dash, linewidth=1.2)
            axes.plot(one.n, one.printed, color=INK, linestyle=":", linewidth=0.8)
            value, low, high = (list(v) for v in zip(*one.measured, strict=True))
            arms = [[v - e for v, e in zip(value, low, strict=True)],
                    [e - v for v, e in zip(value, high, strict=True)]]  # fmt: skip
            axes.errorbar(
                one.at, value, yerr=arms, color=color, marker=marker, linestyle="none",
                markerfacecolor="white", linewidth=0.8, label=one.name,
            )  # fmt: skip
        axes.plot([], [], color=INK, linestyle=":", linewidth=0.8, label="bound as printed")
        axes.set(xlabel="dimension n", ylabel=ylabel, ylim=(-0.03, 1.03))
        ticks(axes, [v for one in shown for v in one.at], log=True)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        legend(figure, [axes])
    return figure
