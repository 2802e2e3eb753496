"""Points with arms, a line for each name."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adpur.papers.charts.style import CHART_STYLE, looks, sheet
from adpur.report.draw.plots import legend

Arm = Sequence[float]
"""Value, low and high, in the unit of the axis."""


class Dots(NamedTuple):
    """A panel: its axis, an arm a line for each marker, and the range it shows at least."""

    xlabel: str
    arms: Mapping[str, Sequence[Arm]]
    limits: tuple[float, float]


def beside(names: Sequence[str], panels: Sequence[Dots]) -> Figure:
    """Panels side by side over the same lines; a marker means the same in all of them."""
    with mpl.rc_context(CHART_STYLE):
        figure = sheet(0.9 + 0.2 * len(names))
        known = looks(name for panel in panels for name in panel.arms)
        line = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, panel in zip(line, panels, strict=True):
            for k, (name, arms) in enumerate(panel.arms.items()):
                color, marker, _ = known[name]
                shift = 0.3 * (k - (len(panel.arms) - 1) / 2)
                _arms(axes, arms, shift, color, marker, name)
            _framed(axes, panel, [v for arms in panel.arms.values() for arm in arms for v in arm])
        line[0].set(yticks=range(len(names)), ylim=(len(names) - 0.4, -0.6))
        line[0].set_yticklabels(names, fontsize=6.5)
        legend(figure, line)
    return figure


def _arms(
    axes: Axes, arms: Sequence[Arm], shift: float, color: str, marker: str, name: str
) -> None:
    middle, low, high = np.array(arms, dtype=np.float64).T
    length = np.maximum([middle - low, high - middle], 0)
    axes.errorbar(
        middle, np.arange(len(arms)) + shift, xerr=length, color=color, marker=marker,
        markersize=3.5, linewidth=0.8, linestyle="none", label=name,
    )  # fmt: skip


def _framed(axes: Axes, panel: Dots, values: Sequence[float]) -> None:
    low, high = panel.limits
    known = [v for v in values if np.isfinite(v)]
    low, high = min([low, *known]), max([high, *known])
    margin = 0.04 * (high - low)
    axes.set(xlabel=panel.xlabel, xlim=(low - margin, high + margin))
    axes.set_xticks(np.linspace(*panel.limits, 3))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.label.set_fontsize(7)
    axes.grid(axis="y", visible=False)
