"""RevPure: where a purifier takes the surroundings of one image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adpur.errors import ConfigError
from adpur.papers.analysis import Analysis, Answer, Cell, purifying
from adpur.papers.charts.matrices import Map, correlations
from adpur.papers.paths import draws, perturbations, purified, signs_length
from adpur.papers.subject import Subject

OTHER_NOISE, OTHER_INPUT = "same input, other noise", "other inputs, same noise"
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class DirectionMatrices(Analysis):
    """RevPure Fig. 1: does the noise decide where an image is purified to, or the image?

    Pearson correlations over pixels of purified directions, P(x~) - x for a clean image x: of one
    x~ under `count` draws of all noise, and of `count` x~ under one draw. The x~ are uniform on a
    sphere around x, not clipped to [0, 1]. The paper gives neither the radius of its "small ball"
    nor the number: ours are options. The matrices are those of one image, the means outside the
    diagonal those of every image. A row without randomness has 1 everywhere on the left.

    Costs 2 `count` purifications an image and row.

    Args:
        eps: radius of the sphere over sqrt(C H W): x~ is as far as a sign perturbation of `eps`.
        count: how many draws, and how many x~.
        image: whose matrices are drawn, counted from 0.
    """

    eps: float = 8 / 255
    count: int = 12
    image: int = 0

    def __post_init__(self) -> None:
        if self.eps <= 0 or self.count < 2:
            raise ConfigError(f"expected eps > 0 and count >= 2, got {self.eps:g}, {self.count}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """Two matrices a row."""
        rows: list[tuple[Cell, ...]] = []
        drawn = []
        for subject in purifying(subjects):
            place, maps = placed(subject, self.image), []
            for name, matrices in self._matrices(subject).items():
                means = [outside(m) for m in matrices]
                mean = float(np.mean(means))
                maps.append(Map(f"{name}\nmean of all images {mean:.3g}", matrices[place]))
                index = subject.images.noise.index.tolist()
                told = [*zip(index, means, strict=True), ("all", mean)]
                rows += [(subject.row, name, *cells) for cells in _cells(index[place], maps[-1])]
                rows += [(subject.row, name, i, "mean off-diagonal", "", m) for i, m in told]
            drawn.append((subject.row, maps))
        heading = ("row", "directions of", "image", "first", "second", "correlation")
        return Answer(heading, rows, correlations(drawn))

    def _matrices(self, subject: Subject) -> dict[str, list[Matrix]]:
        """Of every image; the first input under the first noise is common to both."""
        x, noise = subject.images.x, subject.images.noise
        fresh = draws(noise, self.count)
        moved = x.repeat(self.count, 1, 1, 1)
        moved = moved + perturbations(moved, fresh, signs_length(moved, self.eps))
        asked = {
            OTHER_NOISE: (moved[: len(x)].repeat(self.count, 1, 1, 1), fresh),
            OTHER_INPUT: (moved, fresh.fold(draw=0)),
        }
        found = {}
        for name, (inputs, keys) in asked.items():
            subject.tell(f"{subject.row}: {name}")
            ends = purified(subject.defense, inputs, keys).view(self.count, *x.shape)
            found[name] = [
                np.corrcoef(d) for d in (ends - x).flatten(2).transpose(0, 1).double().cpu().numpy()
            ]
        return found


def _cells(image: int, drawn: Map) -> Iterator[tuple[Cell, ...]]:
    for i, j in np.ndindex(drawn.values.shape):
        yield image, i, j, float(drawn.values[i, j])


def placed(subject: Subject, image: int) -> int:
    """`image`, if there is such an image."""
    if not 0 <= image < len(subject.images.x):
        raise ConfigError(f"expected image in 0..{len(subject.images.x) - 1}, got {image}")
    return image


def outside(matrix: Matrix) -> float:
    """Mean outside the diagonal."""
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))
