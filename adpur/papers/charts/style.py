"""What every chart has in common."""

from collections.abc import Iterable
from itertools import cycle

from matplotlib.figure import Figure

from adpur.report.draw.figures import COLUMN_WIDTH
from adpur.report.draw.plots import LOOKS, PLOT_STYLE

CHART_STYLE = PLOT_STYLE | {"font.size": 8, "legend.fontsize": 7, "figure.facecolor": "white"}


def sheet(height: float, width: float = COLUMN_WIDTH) -> Figure:
    """An empty figure; sizes in inches."""
    return Figure(figsize=(width, height))


def looks(names: Iterable[str]) -> dict[str, tuple[str, str, str]]:
    """A colour, marker and dash for each name, in their order; told apart in grey too."""
    return dict(zip(dict.fromkeys(names), cycle(LOOKS), strict=False))
