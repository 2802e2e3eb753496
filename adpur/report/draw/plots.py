"""Plots of a report: one house style for page and print, on light, dark and grey."""

import io
import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from adpur.judging.statistics import Estimate
from adpur.report.draw.figures import STYLE

INK = "#101112"
"""Near black in a PNG; on a page, the page's own text colour, light or dark (`svg`)."""
PLOT_STYLE = STYLE | {
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.facecolor": "none", "figure.facecolor": "none",
    "axes.grid": True, "grid.alpha": 0.2, "grid.color": INK, "grid.linewidth": 0.5,
    "legend.frameon": False, "legend.fontsize": 8, "svg.fonttype": "none", "lines.markersize": 4,
    "font.size": 9, "text.parse_math": False, "figure.constrained_layout.use": True,
    "savefig.bbox": "standard",
}  # fmt: skip
COLORS = ("#4c72b0", "#c44e52", "#55a868", "#8172b3", "#b07d3a", "#3aa1b5")
MARKERS, DASHES = "os^Dvx", ("-", "--", "-.", ":")
LOOKS = tuple((COLORS[k % 6], MARKERS[(k + k // 6) % 6], DASHES[k % 4]) for k in range(36))
"""Each differs from all others in grey too, and a dashed curve lets an equal one show through."""
VERDICTS = ListedColormap(["#7a1020", "#a9cfe6"])
"""Wrong is dark and right is light, in grey too."""
WIDTH = 4.8
"""Inches: what a phone still shows at a readable size."""


class Series(NamedTuple):
    """A named curve, in the unit of its axis; `low` and `high` are its 95 % interval, or empty.

    `weight` is the share of the data behind each point, or empty; what stands `aside` is thin.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    weight: Sequence[float] = ()
    aside: bool = False


class Panel(NamedTuple):
    """A correctness matrix `(n, N)` and what to call it."""

    name: str
    correct: NDArray[np.float64]


def lines(
    series: Sequence[Series], xlabel: str, ylabel: str, log: bool = False, joined: bool = True
) -> Figure:
    """Curves told apart by colour, marker and dash; what stands `aside` is thin and hollow."""
    with mpl.rc_context(PLOT_STYLE):
        figure, axes = _figure(2.8)
        looks = dict(zip(dict.fromkeys(s.name for s in series), cycle(LOOKS), strict=False))
        for one in series:
            color, marker, dash = looks[one.name]
            curve(axes, one, color, marker, dash if joined else "none")
        axes.set(xlabel=xlabel, ylabel=ylabel)
        ticks(axes, [x for one in series for x in one.x], log)
        legend(figure, [axes])
    return figure


def forest(names: Sequence[str], columns: Mapping[str, Sequence[Estimate | None]]) -> Figure:
    """A line for each name: percent right with its interval, one marker a column."""
    with mpl.rc_context(PLOT_STYLE):
        figure, axes = _figure(0.5 + len(names) * (0.12 + 0.1 * len(columns)))
        shifts = np.linspace(-0.3, 0.3, len(columns)) if len(columns) > 1 else [0.0]
        drawn = zip(columns.items(), shifts, cycle(LOOKS), strict=False)
        for (name, found), shift, (color, marker, _) in drawn:
            known = [(k + shift, e) for k, e in enumerate(found) if e is not None]
            _errors(axes, [e for _, e in known], [y for y, _ in known], color, marker, name)
        axes.set(xlabel="percent right [95 %]", xlim=(-2, 102), yticks=range(len(names)))
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_yticklabels(names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        legend(figure, [axes])
    return figure


def scatter(points: Mapping[str, tuple[Estimate, Estimate]], ylabel: str) -> Figure:
    """Robust over clean accuracy, both with their intervals: above and to the right is better."""
    with mpl.rc_context(PLOT_STYLE):
        figure, axes = _figure(3.0)
        for (name, (x, y)), (color, marker, _) in zip(points.items(), cycle(LOOKS), strict=False):
            axes.errorbar(
                100 * x.value, 100 * y.value, xerr=_arms([x]), yerr=_arms([y]), color=color,
                marker=marker, linewidth=0.8, label=name, linestyle="none",
            )  # fmt: skip
        axes.set(xlabel="clean, percent right", ylabel=ylabel)
        legend(figure, [axes])
    return figure


def matrix(panels: Sequence[Panel]) -> Figure:
    """Images along, draws down, a strip a panel; one order of images for all, easiest first."""
    order = np.argsort(-np.mean([p.correct.mean(axis=1) for p in panels], axis=0), kind="stable")
    with mpl.rc_context(PLOT_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(WIDTH, 0.35 + 0.36 * len(panels)))
        strips = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(strips, panels, strict=True):
            axes.imshow(
                panel.correct[order].T, cmap=VERDICTS, vmin=0, vmax=1, aspect="auto",
                interpolation="none",
            )  # fmt: skip
            axes.set(yticks=[])
            axes.set_ylabel(panel.name, rotation=0, ha="right", va="center")
        strips[-1].set_xlabel("images, by how often all rows are right")
    return figure


def svg(figure: Figure, name: str) -> str:
    """Markup for a page: scales to it, takes its text colour, the same bytes every time."""
    stream = io.StringIO()
    with mpl.rc_context(PLOT_STYLE | {"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)  # the same in every plot of the page
    head, _, rest = text.partition(">")
    return re.sub(r' (width|height)="[^"]*"', "", head) + ">" + rest.strip()


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    axes: Axes = figure.subplots()
    return figure, axes


def curve(axes: Axes, one: Series, color: str, marker: str, dash: str) -> None:
    """One series on `axes`; what stands aside is thin and hollow."""
    label = f"{one.name}, clean" if one.aside else one.name
    axes.plot(
        one.x, one.y, color=color, marker=marker, linestyle=dash, label=label,
        linewidth=0.8 if one.aside else 1.5, markerfacecolor="none" if one.aside else color,
    )  # fmt: skip
    if len(one.weight):
        axes.scatter(one.x, one.y, [600 * w for w in one.weight], color=color, alpha=0.3, lw=0)
    if len(one.low):
        arms = np.subtract(one.y, one.low), np.subtract(one.high, one.y)
        axes.errorbar(
            one.x, one.y, yerr=np.maximum(arms, 0), color=color, linewidth=0.8, linestyle="none"
        )


def ticks(axes: Axes, values: Sequence[float], log: bool) -> None:
    """The values themselves where they are few; 1, 2, 5 of each decade on a logarithmic axis."""
    few = sorted(set(values))
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
    if len(few) <= 6:
        axes.set_xticks(few, [f"{v:.3g}" for v in few])
    elif not log and all(float(v).is_integer() for v in values):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _errors(
    axes: Axes, found: Sequence[Estimate], y: Sequence[float], color: str, marker: str, name: str
) -> None:
    axes.errorbar(
        [100 * e.value for e in found], y, xerr=_arms(found), color=color, marker=marker,
        linestyle="none", linewidth=0.8, label=name,
    )  # fmt: skip


def _arms(found: Sequence[Estimate]) -> NDArray[np.float64]:
    """Lengths `(2, n)` in points of the arms of intervals."""
    arms = [(max(e.value - e.low, 0), max(e.high - e.value, 0)) for e in found]
    return 100 * np.array(arms).reshape(-1, 2).T


def legend(figure: Figure, plots: Sequence[Axes]) -> None:
    """Below the plots, where it hides no data; each name once."""
    shown = [axes.get_legend_handles_labels() for axes in plots]
    named = {label: handle for both in shown for handle, label in zip(*both, strict=True)}
    handles, labels = list(named.values()), list(named)
    if len(labels) > 1:
        columns = max(1, min(4, 64 // (max(map(len, labels)) + 6)))
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
