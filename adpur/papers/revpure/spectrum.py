"""RevPure: the purified surroundings of an image fill few dimensions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import IncrementalPCA

from adpur.errors import ConfigError
from adpur.papers.analysis import Analysis, Answer, Cell, purifying
from adpur.papers.charts.spectra import spectra
from adpur.papers.paths import draws, perturbations, purified, signs_length
from adpur.papers.revpure.matrices import placed
from adpur.papers.subject import Subject

EDGES = np.linspace(-1, 1, 101)
LEVEL = 0.9
BEFORE, AFTER, OWN = "perturbations", "purified directions", "one with the other"
Batch = NDArray[np.float64]


class Tally:
    """Correlations of neighbours in a stream, counted, and the stream's principal components."""

    def __init__(self, components: int) -> None:
        self.counts = np.zeros(len(EDGES) - 1)
        self.total, self.number = 0.0, 0
        self.pca = IncrementalPCA(components)

    def add(self, batch: Batch) -> None:
        """Disjoint pairs of neighbours, each independent of the others."""
        self.correlate(batch[0 : len(batch) // 2 * 2 : 2], batch[1::2])
        self.pca.partial_fit(batch)

    def correlate(self, first: Batch, second: Batch) -> None:
        """Pearson's correlation of each row of one with the same row of the other."""
        unit = [b - b.mean(1, keepdims=True) for b in (first, second)]
        unit = [b / np.linalg.norm(b, axis=1, keepdims=True) for b in unit]
        found = (unit[0] * unit[1]).sum(1)
        self.counts += np.histogram(found.clip(-1, 1), EDGES)[0]
        self.total, self.number = self.total + float(found.sum()), self.number + len(found)

    @property
    def shares(self) -> Batch:
        """Of the correlations between `EDGES`."""
        return self.counts / self.number

    @property
    def explained(self) -> list[float]:
        """Cumulative share of the variance; empty where only correlations were asked."""
        ratios = getattr(self.pca, "explained_variance_ratio_", [])
        shares: list[float] = np.cumsum(ratios).tolist()
        return shares


@dataclass(frozen=True)
class DirectionSpectrum(Analysis):
    """RevPure Fig. 4b and 4c: purified directions are alike, and lie in few dimensions.

    Of `count` random perturbations of one image, uniform on a sphere and not clipped to [0, 1]:
    correlations over pixels of pairs of perturbations, of pairs of purified directions P(x + d) - x
    and, as a control, of each perturbation with its own direction; and cumulative explained
    variance of their principal components (scikit-learn's `IncrementalPCA`; exact where
    `components` is the whole dimension). In brackets, the components that reach 90 %. The paper
    takes 30,000 and gives no radius. It does not say whether each has noise of its own: here each
    does, or all share one draw (`same_noise`), which shows the images' part alone.

    Costs `count` purifications a row, a batch at a time: memory does not grow with `count`.

    Args:
        count: how many perturbations.
        eps: radius over sqrt(C H W): as far as a sign perturbation of `eps`.
        image: of which image, counted from 0.
        same_noise: all under one draw.
        components: the most principal components kept.
    """

    count: int = 2000
    eps: float = 8 / 255
    image: int = 0
    same_noise: bool = False
    components: int = 1024

    def __post_init__(self) -> None:
        if self.eps <= 0 or self.count < 4 or self.components < 1:
            raise ConfigError(
                "expected eps > 0, count >= 4 and components >= 1, got "
                f"{self.eps:g}, {self.count}, {self.components}"
            )

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A panel of histograms a row; the curve of the perturbations is common to all."""
        rows: list[tuple[Cell, ...]] = []
        shares: dict[str, dict[str, Batch]] = {}
        explained: dict[str, list[float]] = {}
        for subject in purifying(subjects):
            found = self._tallied(subject)
            shares[subject.row] = {name: tally.shares for name, tally in found.items()}
            explained.setdefault(BEFORE, found[BEFORE].explained)
            explained[subject.row] = found[AFTER].explained
            for name, tally in found.items():
                rows += [(subject.row, name, *cells) for cells in _cells(tally)]
        heading = ("row", "directions", "quantity", "at", "value")
        return Answer(heading, rows, spectra(shares, EDGES, explained, LEVEL))

    def _tallied(self, subject: Subject) -> dict[str, Tally]:
        size = subject.images.x[0].numel()
        most = min(self.components, size, self.count)
        tallies = {name: Tally(most) for name in (BEFORE, AFTER, OWN)}
        for before, after in self._streamed(subject, max(most, 512)):
            tallies[BEFORE].add(before)
            tallies[AFTER].add(after)
            tallies[OWN].correlate(before, after)
        return tallies

    def _streamed(self, subject: Subject, batch: int) -> Iterator[tuple[Batch, Batch]]:
        """Perturbations and purified directions `(n, C H W)`, a batch at a time."""
        place = placed(subject, self.image)
        x, noise = subject.images.x[place][None], subject.images.noise[place : place + 1]
        for start in range(0, self.count, batch):
            subject.tell(f"{subject.row}: {start} of {self.count} perturbations")
            keys = draws(noise, min(batch, self.count - start), start)
            clean = x.expand(len(keys.index), -1, -1, -1)
            moved = perturbations(clean, keys, signs_length(clean, self.eps))
            shared = keys.fold(draw=0) if self.same_noise else keys
            ends = purified(subject.defense, clean + moved, shared) - clean
            yield tuple(d.flatten(1).double().cpu().numpy() for d in (moved, ends))  # type: ignore[misc]


def _cells(tally: Tally) -> Iterator[tuple[Cell, ...]]:
    yield "mean correlation", "", tally.total / tally.number
    middles = ((EDGES[1:] + EDGES[:-1]) / 2).round(4)
    for middle, share in zip(middles.tolist(), tally.shares.tolist(), strict=True):
        yield "share of correlations near", middle, share
    for count, share in enumerate(tally.explained, 1):
        yield "explained by", count, share
