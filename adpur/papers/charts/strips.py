"""Images in the order in which they follow each other."""

from collections.abc import Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from adpur.papers.charts.style import CHART_STYLE, sheet
from adpur.report.draw.figures import COLUMN_WIDTH, pixels


class Strip(NamedTuple):
    """Images `(n, C, H, W)` in [0, 1], a caption above each, and what they are called."""

    name: str
    images: Tensor
    captions: Sequence[str]


def strips(shown: Sequence[Strip]) -> Figure:
    """One below the other, each as wide as the longest of them; a name stands over its own."""
    length = max(len(s.images) for s in shown)
    with mpl.rc_context(CHART_STYLE | {"axes.grid": False}):
        width = max(COLUMN_WIDTH, 0.62 * length)
        figure = sheet(len(shown) * (width / length + 0.16), width)
        lines = figure.subplots(len(shown), length, squeeze=False)
        for line, strip in zip(lines, shown, strict=True):
            for axes in line:
                axes.set_axis_off()
            for axes, image, caption in zip(line, strip.images, strip.captions, strict=False):
                _image(axes, image, caption)
            line[0].text(
                -0.1, 0.5, strip.name, rotation=90, ha="right", va="center", fontsize=6,
                transform=line[0].transAxes,
            )  # fmt: skip
    return figure


def _image(axes: Axes, image: Tensor, caption: str) -> None:
    axes.imshow(pixels(image), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(caption, fontsize=5.5, pad=2)
