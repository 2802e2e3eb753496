"""Is what RBGM ranks uniform?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from adpur.addt.case import Case
from adpur.addt.cgpo import addt_paper
from adpur.addt.tally import Tally, shown
from adpur.errors import ConfigError
from adpur.judging.trial import Examples
from adpur.keyed.noise import Noise, Source, Stream
from adpur.papers.analysis import Analysis, Answer, Cell, only, purifying
from adpur.papers.subject import Subject
from adpur.report.draw.figures import binned_ranks, rank_histograms
from adpur.types import to_signed


@dataclass(frozen=True)
class RankHistograms(Analysis):
    """ADDT Fig. 9: ranks of CGPO's accumulated gradient delta at three pixels, by channel.

    The search of Algorithm 1 runs without a fit on training images, each once at a time drawn as
    a fit draws it, against the row's networks as they are. [1, 1], [8, 8] and [16, 16] of
    32 x 32 stand for the same places of other sizes. Beside the counts is the p of a chi-square
    test against the uniform, over the bins of the figure; it is worth something from five images
    a bin on. The paper tests nothing, and does not say at what stage of the fit it counts.

    Costs `steps` forwards and input-backwards of both networks for each image.

    Args:
        count: training images, from the first.
        unit, high: of lambda_t; the paper's values serve Linf 8/255.
        steps: iterations of the search.
    """

    count: int = 1024
    unit: float = 0.03
    high: float = 0.3
    steps: int = 5

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"expected count >= 1, got {self.count}")
        addt_paper(self.unit, self.high, steps=self.steps)  # refuses its own settings

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """Counts in the figure's bins."""
        subject = only(purifying(subjects))
        images = subject.split("train", self.count)
        counts = self._counted(subject, images)
        pixels = shown(*images.x.shape[2:])
        heading = (
            "row", "pixel", "channel", "from rank", "below rank", "images",
            "times the uniform's share", "p of uniformity",
        )  # fmt: skip
        rows = _table(subject.row, counts, pixels)
        return Answer(heading, rows, rank_histograms(counts, pixels))

    def _counted(self, subject: Subject, images: Examples) -> NDArray[np.int64]:
        """Counts `(3, C, HW)`."""
        search, tally = addt_paper(self.unit, self.high, steps=self.steps), Tally(1.0)
        size = subject.defense.rows
        for first in range(0, len(images.x), size):
            part = images.rows(slice(first, first + size))
            tally.add(search.search(*_posed(subject, part)))
            subject.tell(f"{subject.row}: {first + len(part.x)} of {len(images.x)} images")
        counts: NDArray[np.int64] = tally.counts["ranks"].cpu().numpy()
        return counts


def _posed(subject: Subject, images: Examples) -> tuple[Case, Noise]:
    """A training batch as CGPO gets it, and its keys."""
    nets, noise = subject.defense.networks, images.noise.fold(source=Source.TRAIN)
    share = noise.uniform(images.x.flatten(1)[:, 0].double(), Stream.TIME)
    t = nets.denoiser.training_time(share)
    return Case(to_signed(images.x), images.y, t, nets.denoiser, nets.classifier), noise


def _table(
    row: str, counts: NDArray[np.int64], pixels: Sequence[tuple[int, int]]
) -> list[tuple[Cell, ...]]:
    binned = binned_ranks(counts)
    wide = counts.shape[2] // binned.shape[2]
    rows: list[tuple[Cell, ...]] = []
    for place, channels in zip(pixels, binned, strict=True):
        for c, line in enumerate(channels):
            p_value = float(stats.chisquare(line).pvalue)
            rows += [
                (row, "[{}, {}]".format(*place), c + 1, k * wide, (k + 1) * wide, int(n),
                 float(n * len(line) / line.sum()), p_value)
                for k, n in enumerate(line)
            ]  # fmt: skip
    return rows
