"""Plots of a report: one house style for page and print, on light, dark and grey."""

import io
import re
from collections.abc import Sequence
from itertools import cycle, product
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adpur.figures import STYLE
from adpur.metrics.statistics import Estimate

INK = "#123456"
"""Stands for the page's own text colour, light or dark, until the plot is written."""
PLOT_STYLE = STYLE | {
    "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.facecolor": "none", "figure.facecolor": "none",
    "axes.grid": True, "grid.alpha": 0.2, "grid.color": INK, "grid.linewidth": 0.5,
    "legend.frameon": False, "legend.fontsize": 7, "svg.fonttype": "none", "lines.markersize": 4,
}  # fmt: skip
COLORS = ("#4c72b0", "#c44e52", "#55a868", "#8172b3", "#b07d3a", "#3aa1b5")
MARKERS, DASHES = "os^Dvx", ("-", "--", "-.", ":")
MARKS = tuple((COLORS[k % 6], MARKERS[k % 6]) for k in range(6))
VERDICTS = ListedColormap(["#7a1020", "#a9cfe6"])
"""Wrong is dark and right is light, in grey too."""
WIDTH = 5.2
"""Inches: what a phone still shows at a readable size."""


class Series(NamedTuple):
    """A named curve, in the unit of its axis; `low` and `high` are its 95 % interval, or empty."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
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
        figure, axes = _figure(2.6)
        styles = dict(zip(dict.fromkeys(s.name for s in series), _styles(), strict=False))
        for one in series:
            color, marker, dash = styles[one.name]
            look = {"color": color, "linestyle": dash if joined else "none"}
            look |= {"linewidth": 0.8, "markerfacecolor": "none"} if one.aside else {}
            label = f"{one.name}, clean" if one.aside else one.name
            _curve(axes, one, look | {"marker": marker, "label": label})
        axes.set(xlabel=xlabel, ylabel=ylabel, xscale="log" if log else "linear")
        _legend(figure, axes)
    return figure


def forest(names: Sequence[str], columns: dict[str, Sequence[Estimate | None]]) -> Figure:
    """A line for each name: percent right with its interval, one marker a column."""
    with mpl.rc_context(PLOT_STYLE):
        figure, axes = _figure(0.5 + len(names) * (0.12 + 0.1 * len(columns)))
        shifts = np.linspace(-0.3, 0.3, len(columns)) if len(columns) > 1 else [0.0]
        for (name, found), shift, (color, marker, _) in zip(
            columns.items(), shifts, _styles(), strict=False
        ):
            known = [(k + shift, e) for k, e in enumerate(found) if e is not None]
            _errors(axes, [e for _, e in known], [y for y, _ in known], color, marker, name)
        axes.set(xlabel="percent right [95 %]", xlim=(-2, 102), yticks=range(len(names)))
        axes.set_yticklabels(names)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        _legend(figure, axes)
    return figure


def scatter(points: dict[str, tuple[Estimate, Estimate]], ylabel: str) -> Figure:
    """Robust over clean accuracy, both with their intervals: above and to the right is better."""
    with mpl.rc_context(PLOT_STYLE):
        figure, axes = _figure(3.0)
        for (name, (x, y)), (color, marker, _) in zip(points.items(), _styles(), strict=False):
            axes.errorbar(
                100 * x.value, 100 * y.value, xerr=_arms([x]), yerr=_arms([y]), color=color,
                marker=marker, linewidth=0.8, label=name, linestyle="none",
            )  # fmt: skip
        axes.set(xlabel="clean, percent right", ylabel=ylabel)
        _legend(figure, axes)
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
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text)
    return re.sub(r'(<svg[^>]*?) width="([\d.]+)pt"', r'\1 style="max-width: \2pt"', text).strip()


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    axes: Axes = figure.subplots()
    return figure, axes


def _styles() -> Any:
    """Colour, marker and dash: 24 that differ in grey, then again."""
    return cycle((color, marker, dash) for dash, (color, marker) in product(DASHES, MARKS))


def _curve(axes: Axes, one: Series, look: dict[str, Any]) -> None:
    axes.plot(one.x, one.y, **look)
    if len(one.low):
        arms = np.subtract(one.y, one.low), np.subtract(one.high, one.y)
        axes.errorbar(
            one.x, one.y, yerr=np.maximum(arms, 0), color=look["color"], linewidth=0.8,
            linestyle="none",
        )  # fmt: skip


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


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the plot, where it hides no data."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        longest = max(map(len, labels))
        figure.legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0),
            ncols=max(1, min(4, 84 // (longest + 8))),
        )  # fmt: skip
