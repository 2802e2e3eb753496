"""How much a purifier compresses, at which radius, along which directions, and what it is worth."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adpur.papers.charts.style import CHART_STYLE, looks, sheet
from adpur.report.draw.plots import Series, curve, legend, ticks


class Points(NamedTuple):
    """A cloud of points and its rank correlation."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    rho: float


def compressions(
    over: Sequence[Series], spectra: Sequence[Series], points: Sequence[Points]
) -> Figure:
    """Rate over radius, singular values by rank, and accuracy over the rate of each image.

    The line at 1 parts what brings images closer from what drives them apart. In the cloud rows are
    shifted a little, so as not to hide each other. Panels without data are left out.
    """
    known = looks(one.name for one in over)
    draws: list[Callable[[Axes], None]] = [lambda axes: _rates(axes, over, known)]
    if spectra:
        draws.append(lambda axes: _ranks(axes, spectra, known))
    if points:
        draws.append(lambda axes: _cloud(axes, points, known))
    with mpl.rc_context(CHART_STYLE):
        figure = sheet(1.75 * len(draws) + 0.4)
        stacked = figure.subplots(len(draws), 1, squeeze=False)[:, 0]
        for axes, draw in zip(stacked, draws, strict=True):
            draw(axes)
        legend(figure, [stacked[0]])
    return figure


Known = Mapping[str, tuple[str, str, str]]


def _rates(axes: Axes, over: Sequence[Series], known: Known) -> None:
    for one in over:
        curve(axes, one, *known[one.name])
    _at_one(axes)
    ticks(axes, [x for one in over for x in one.x], False)
    axes.set(xlabel="eps", ylabel="compression rate", ylim=(0, None))


def _ranks(axes: Axes, spectra: Sequence[Series], known: Known) -> None:
    for one in spectra:
        color, marker, dash = known[one.name]
        axes.fill_between(one.x, one.low, one.high, color=color, alpha=0.15, linewidth=0)
        every = max(1, len(one.x) // 8)
        axes.plot(one.x, one.y, color=color, marker=marker, linestyle=dash, markevery=every)
    _at_one(axes)
    axes.set(xlabel="rank", ylabel="singular value", ylim=(0, None))


def _cloud(axes: Axes, points: Sequence[Points], known: Known) -> None:
    for k, one in enumerate(points):
        color, marker, _ = known[one.name]
        shift = 0.05 * (k - (len(points) - 1) / 2)
        axes.plot(
            one.x, [y + shift for y in one.y], color=color, marker=marker, linestyle="none",
            markerfacecolor="none", markersize=3, alpha=0.8, label=f"{one.name}: {one.rho:.2f}",
        )  # fmt: skip
    axes.set(xlabel="compression rate of an image", ylabel="draws right, attacked")
    axes.set_ylim(-0.15, 1.15)
    axes.legend(title="rank correlation", fontsize=6, title_fontsize=6, loc="center right")


def _at_one(axes: Axes) -> None:
    axes.axhline(1, color="black", linewidth=0.8, linestyle=":")
