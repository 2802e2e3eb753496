"""Directions in many dimensions: how alike they are, and how many dimensions they fill."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adpur.papers.charts.style import CHART_STYLE, looks, sheet
from adpur.report.draw.figures import FILLS
from adpur.report.draw.plots import LOOKS

Histogram = Mapping[str, NDArray[np.float64]]
"""Shares between common edges, by name."""


def spectra(
    shares: Mapping[str, Histogram], edges: NDArray[np.float64],
    explained: Mapping[str, Sequence[float]], level: float,
) -> Figure:  # fmt: skip
    """A panel of histograms a row, and cumulative explained variance over components."""
    with mpl.rc_context(CHART_STYLE):
        figure = sheet(1.25 * len(shares) + 2.4)
        heights = [1.0] * len(shares) + [1.7]
        *upper, lower = figure.subplots(len(heights), 1, height_ratios=heights)
        used = np.flatnonzero(sum(sum(h.values()) for h in shares.values()))
        for axes, (row, histogram) in zip(upper, shares.items(), strict=True):
            _histograms(axes, histogram, edges)
            axes.set(ylabel=f"{row}\nshare of pairs", xlim=edges[[used.min(), used.max() + 1]])
        upper[-1].set_xlabel("correlation")
        handles, labels = upper[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=6)
        _cumulative(lower, explained, level)
    return figure


def _histograms(axes: Axes, histogram: Histogram, edges: NDArray[np.float64]) -> None:
    for (name, share), (color, hatch) in zip(histogram.items(), FILLS, strict=False):
        axes.stairs(
            share, edges, fill=True, facecolor=color, edgecolor="black", hatch=hatch, alpha=0.6,
            linewidth=0.5, label=name,
        )  # fmt: skip


def _cumulative(axes: Axes, explained: Mapping[str, Sequence[float]], level: float) -> None:
    known = looks(explained)
    for name, share in explained.items():
        color, marker, dash = known[name]
        count = np.arange(1, len(share) + 1)
        reached = int(np.searchsorted(share, level)) + 1
        told = f"{name} ({reached if reached <= len(share) else f'> {len(share)}'})"
        axes.plot(
            count, share, color=color, marker=marker, linestyle=dash, label=told,
            markevery=max(1, len(share) // 8),
        )  # fmt: skip
    axes.axhline(level, color="black", linewidth=0.8, linestyle=LOOKS[2][2])
    axes.set(xlabel="principal components", ylabel="explained variance", ylim=(0, 1.03))
    axes.legend(title=f"components to {level:g}", fontsize=6, title_fontsize=6, loc="lower right")
