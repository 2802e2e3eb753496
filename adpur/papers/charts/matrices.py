"""Matrices as heat maps."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from adpur.papers.charts.style import CHART_STYLE, sheet
from adpur.report.draw.figures import COLUMN_WIDTH


class Map(NamedTuple):
    """A square matrix and what stands over it."""

    title: str
    values: NDArray[np.float64]


def correlations(lines: Sequence[tuple[str, Sequence[Map]]]) -> Figure:
    """Correlation matrices, a line for each name; one scale for all, from black at 1 down.

    It begins at 0, or at the quarter below what is negative.
    """
    count = max(len(maps) for _, maps in lines)
    low = min(0.0, min(float(m.values.min()) for _, maps in lines for m in maps))
    with mpl.rc_context(CHART_STYLE | {"axes.grid": False}):
        figure = sheet(COLUMN_WIDTH / count * 0.92 * len(lines) + 0.55)
        grid = figure.subplots(len(lines), count, squeeze=False)
        for line, (name, maps) in zip(grid, lines, strict=True):
            line[0].set_ylabel(name)
            for axes, one in zip(line, maps, strict=True):
                drawn = axes.imshow(
                    one.values, cmap="cividis_r", vmin=np.floor(4 * low) / 4, vmax=1,
                    interpolation="nearest",
                )  # fmt: skip
                axes.set_title(one.title, fontsize=7, pad=3)
                axes.set(xticks=[], yticks=[])
        bar = figure.colorbar(drawn, ax=grid, orientation="horizontal", aspect=40, pad=0.02)
        bar.set_label("correlation of purified directions")
    return figure
