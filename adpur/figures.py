"""Drawings of a run, in one house style that survives grey printing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 160,
    "savefig.bbox": "tight",
}
FILLS = (("#c6c6c6", ""), ("#4c72b0", "//"), ("#c44e52", "\\\\"), ("#55a868", ".."))
COLUMN_WIDTH = 3.4
"""Inches: one column of a two-column paper."""


def histograms(values: Mapping[str, NDArray[np.float64]], label: str, title: str) -> Figure:
    """Overlaid histograms, one fill and hatch a name, their medians as ticks on top."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH, 2.1))
        axes = figure.subplots()
        pooled = np.concatenate([v[np.isfinite(v)].ravel() for v in values.values()])
        bins = np.linspace(pooled.min(), max(pooled.max(), pooled.min() + 1e-6), 31).tolist()
        for (name, v), (color, hatch) in zip(values.items(), FILLS, strict=False):
            v = v[np.isfinite(v)].ravel()
            share = np.full(len(v), 1 / max(len(v), 1))
            axes.hist(
                v, bins, weights=share, color=color, hatch=hatch, alpha=0.65, edgecolor="black",
                linewidth=0.4, label=f"{name} (median {np.median(v):.3g})",
            )  # fmt: skip
        axes.set(xlabel=label, ylabel="share of images", title=title)
        axes.legend(frameon=False, fontsize=7)
    return figure


def image_grid(rows: Sequence[tuple[str, Tensor]], title: str, notes: Sequence[str] = ()) -> Figure:
    """One line of images `(n, C, H, W)` in [0, 1] for each name; `notes` head the columns."""
    count = max(len(images) for _, images in rows)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(COLUMN_WIDTH, 0.62 * count + 0.9), 0.68 * len(rows) + 0.5))
        grid = figure.subplots(len(rows), count, squeeze=False)
        for line, (name, images) in zip(grid, rows, strict=True):
            for k, axes in enumerate(line):
                axes.set(xticks=[], yticks=[])
                if k < len(images):
                    pixels = images[k].clamp(0, 1).permute(1, 2, 0).squeeze(-1).numpy()
                    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axes, note in zip(grid[0], notes, strict=False):
            axes.set_title(note, fontsize=6)
        figure.suptitle(title, fontsize=8)
    return figure


def save(figure: Figure, file: Path) -> Path:
    """Write a PNG and return its path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(STYLE):
        figure.savefig(file)
    return file


def file_name(*words: str) -> str:
    """Words as one safe file name.

    >>> file_name("t(x)", "SSNI-N", "pgd 8/255")
    't-x-ssni-n-pgd-8-255.png'
    """
    text = "-".join(words).lower()
    safe = "".join(c if c.isalnum() or c in "._" else "-" for c in text)
    return "-".join(filter(None, safe.split("-"))) + ".png"
