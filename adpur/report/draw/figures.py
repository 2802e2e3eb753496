"""Drawings of a run, in one house style that survives grey printing."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from adpur.judging.records import Records
from adpur.judging.scoreboard import Column, Outcome

STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 160,
    "savefig.bbox": "tight",
}
FILLS = (("#c6c6c6", ""), ("#4c72b0", "//"), ("#c44e52", "\\\\"), ("#55a868", ".."))
BELOW: dict[str, Any] = {
    "loc": "upper center", "bbox_to_anchor": (0.5, -0.24), "frameon": False, "fontsize": 7,
}  # fmt: skip
"""A legend where it hides no data, and where none is looked for: that takes seconds."""
COLUMN_WIDTH = 3.4
"""Inches: one column of a two-column paper."""


def histograms(values: Mapping[str, NDArray[np.float64]], label: str, title: str) -> Figure:
    """Overlaid histograms, one fill and hatch a name, medians in the legend."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH, 2.1))
        axes = figure.subplots()
        pooled = np.concatenate([v[np.isfinite(v)].ravel() for v in values.values()])
        bins = np.linspace(pooled.min(), max(pooled.max(), pooled.min() + 1e-6), 31).tolist()
        for (name, v), (color, hatch) in zip(values.items(), cycle(FILLS), strict=False):
            v = v[np.isfinite(v)].ravel()
            share = np.full(len(v), 1 / max(len(v), 1))
            axes.hist(
                v, bins, weights=share, color=color, hatch=hatch, alpha=0.65, edgecolor="black",
                linewidth=0.4, label=f"{name} (median {np.median(v):.3g})",
            )  # fmt: skip
        axes.set(xlabel=label, ylabel="share of images", title=title)
        axes.legend(**BELOW)
    return figure


def pixels(image: Tensor) -> NDArray[np.float32]:
    """An image `(C, H, W)` as `imshow` takes it, clamped to [0, 1]; one channel is grey."""
    drawn: NDArray[np.float32] = image.clamp(0, 1).permute(1, 2, 0).squeeze(-1).numpy()
    return drawn


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
                    axes.imshow(pixels(images[k]), cmap="gray", vmin=0, vmax=1)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for axes, note in zip(grid[0], notes, strict=False):
            axes.set_title(note, fontsize=6)
        figure.suptitle(title, fontsize=8)
    return figure


def binned_ranks(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts `(P, C, N)` of ranks in equal bins, as many as divide N up to 32 `(P, C, bins)`."""
    bins = max(d for d in range(1, 33) if counts.shape[2] % d == 0)
    binned: NDArray[np.int64] = counts.reshape(*counts.shape[:2], bins, -1).sum(-1)
    return binned


def rank_histograms(counts: NDArray[np.int64], pixels: Sequence[tuple[int, int]]) -> Figure:
    """How often a pixel has each rank, counts `(P, C, N)`: a line a pixel, a column a channel.

    In multiples of the uniform's share, the line at 1 (ADDT Fig. 9).
    """
    channels, ranks = counts.shape[1:]
    binned = binned_ranks(counts)
    bins = binned.shape[2]
    height = binned * bins / np.maximum(binned.sum(-1, keepdims=True), 1)
    edges = np.linspace(0, ranks, bins + 1)
    with mpl.rc_context(STYLE):
        size = (max(COLUMN_WIDTH, 1.7 * channels), 1.2 * len(pixels) + 0.4)
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(pixels), channels, squeeze=False, sharex=True, sharey=True)
        for k, line in enumerate(grid):
            line[0].set_ylabel("pixel [{}, {}]".format(*pixels[k]))
            for c, axes in enumerate(line):
                axes.stairs(height[k, c], edges, fill=True, color=FILLS[1][0], alpha=0.65)
                axes.axhline(1, color="black", linewidth=0.8, linestyle="--")
        for c, axes in enumerate(grid[-1]):
            axes.set_xlabel(f"rank in channel {c + 1}")
        figure.supylabel("times the uniform's share", fontsize=8)
    return figure


def counted(
    counts: NDArray[np.int64], edges: NDArray[np.float64], label: str, share_of: str
) -> Figure:
    """A histogram from `counts` between `edges`, up to the last bin that holds anything."""
    used = int(np.flatnonzero(counts).max(initial=0)) + 1
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH, 2.1))
        axes = figure.subplots()
        share = counts[:used] / max(counts.sum(), 1)
        axes.stairs(share, edges[: used + 1], fill=True, color=FILLS[1][0], alpha=0.65)
        axes.set(xlabel=label, ylabel=share_of, xlim=(0, edges[used]))
    return figure


def curves(values: Mapping[str, NDArray[np.float64]], xlabel: str, ylabel: str) -> Figure:
    """One line a name over 1, 2, ..., told apart by colour, marker and dash."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH, 2.1))
        axes = figure.subplots()
        looks = zip(("#4c72b0", "#c44e52", "#55a868"), "os^", ("-", "--", "-."), strict=True)
        for (name, v), (color, marker, dash) in zip(values.items(), cycle(looks), strict=False):
            x = np.arange(1, len(v) + 1)
            axes.plot(x, v, color=color, marker=marker, markersize=4, linestyle=dash, label=name)
        axes.set(xlabel=xlabel, ylabel=ylabel, xticks=x)
        axes.legend(**BELOW)
    return figure


class Drawn(NamedTuple):
    """A figure on disk: the row it shows, a key for loggers, the file, the values behind it."""

    row: str
    key: str
    file: Path
    values: dict[str, NDArray[np.float64]]


def draw_levels(outcomes: Mapping[Column, Outcome], folder: Path) -> Iterator[Drawn]:
    """Histograms of t(x) and of score norms, clean against attacked, of rows that have them."""
    for row in dict.fromkeys(c.row for c in outcomes):
        mine = {c: o for c, o in outcomes.items() if c.row == row}
        if not any(np.isfinite(o.score_norm).any() for o in mine.values()):
            continue
        names = {c: c.attack if c.clean else f"{c.attack} {c.eps:g}" for c in mine}
        for key, label in (("t", "noise level t(x)"), ("score_norm", "score norm")):
            values = {names[c]: getattr(o, key) for c, o in mine.items()}
            file = folder / "figures" / file_name(key, row)
            yield Drawn(row, key, save(histograms(values, label, row), file), values)


def draw_galleries(outcomes: Mapping[Column, Outcome], records: Records) -> Iterator[Drawn]:
    """Clean, adversarial and purified images of every attacked column that kept some."""
    for column, outcome in outcomes.items():
        kept = records.gallery(column)
        if column.clean or not kept:
            continue
        share = dict(zip(outcome.images.tolist(), outcome.correct.mean(axis=1), strict=True))
        notes = [f"{100 * share[i]:.0f} % right" for i in kept["index"].tolist()]
        lines = [(name, kept[name]) for name in ("clean", "adversarial", "purified")]
        file = records.folder / "figures" / file_name("gallery", *map(str, column))
        key = f"gallery/{column.attack} {column.eps:g}"
        yield Drawn(column.row, key, save(image_grid(lines, str(column), notes), file), {})


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
