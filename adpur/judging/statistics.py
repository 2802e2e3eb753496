"""Intervals over images: draws of one image are not independent evidence."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.special import comb, stdtrit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Estimate(NamedTuple):
    """A share of images with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@lru_cache(4096)
def wilson(hits: int, count: int, level: float = 0.95) -> Estimate:
    """Wilson's interval for `hits` of `count` images.

    >>> print(wilson(126, 128))
    98.4 [94.5, 99.6]
    """
    interval = stats.binomtest(hits, count).proportion_ci(level, method="wilson")
    return Estimate(hits / count, interval.low, interval.high)


def mean_accuracy(correct: Floats, level: float = 0.95) -> Estimate:
    """Mean of a `(n, N)` correctness matrix; its interval is clustered by image.

    Each image counts once, by its share of correct draws; the interval is Student's on those n
    shares and two more, one at 0 and one at 1 (the device of Agresti & Coull 1998 for a mean of
    shares). A percentile bootstrap covered 79 to 93 % of a nominal 95 where nearly all images are
    right; this covers at least 93 % from nearly none to nearly all
    (`tests/judging/test_statistics.py`).

    >>> print(mean_accuracy(np.ones((128, 10))))
    100.0 [97.7, 100.0]
    """
    shares = correct.mean(axis=1)
    low, high = _student(shares, (0.0, 1.0), level)
    return Estimate(float(shares.mean()), max(low, 0.0), min(high, 1.0))


def paired_difference(first: Floats, second: Floats, level: float = 0.95) -> Estimate:
    """Mean of first - second, `(n, N)` each on the same images; Student's with -1 and 1 added.

    The primary comparison of two rows: it uses every draw, and covers 95 % where few images differ
    too, which `paired_bootstrap` does not.
    """
    difference = (first - second).mean(axis=1)
    low, high = _student(difference, (-1.0, 1.0), level)
    return Estimate(float(difference.mean()), low, high)


def paired_bootstrap(first: Floats, second: Floats, level: float = 0.95) -> Estimate:
    """The same mean under a percentile bootstrap of 9,999 resamples of images, fixed seed.

    Assumes no shape; but where few images differ few resamples see them, and it is too narrow.
    """
    difference = (first - second).mean(axis=1)
    if len(difference) < 2:
        return Estimate(float(difference.mean()), -1.0, 1.0)
    batch = max(1, 2**22 // len(difference))  # 32 MiB at a time
    low, high = stats.bootstrap(
        (difference,), np.mean, confidence_level=level, method="percentile", batch=batch, rng=0
    ).confidence_interval
    return Estimate(float(difference.mean()), float(low), float(high))


class Discordance(NamedTuple):
    """Images only the first or only the second of two rows gets right, and their test's p."""

    first: int
    second: int
    p: float

    def __str__(self) -> str:
        return f"+{self.first} -{self.second}, p {self.p:.2g}"


def mcnemar(first: Bools, second: Bools) -> Discordance:
    """McNemar's exact test of two yes-or-no results `(n,)` of the same images.

    >>> print(mcnemar(np.array([True] * 9), np.array([True] + [False] * 8)))
    +8 -0, p 0.0078
    """
    gained, lost = int((first & ~second).sum()), int((second & ~first).sum())
    p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    return Discordance(gained, lost, float(p))


def worst_of(correct: Floats, looks: int | None = None, level: float = 0.95) -> Estimate:
    """Share of images correct on every one of `looks` draws, by default all N of `(n, N)`.

    It falls with the number of looks even without an attack. For fewer than N it is the mean over
    all choices of that many draws, C(c, looks) / C(N, looks) of an image correct c times; the
    interval is then Student's, clustered by image.
    """
    draws = correct.shape[1]
    if looks is None or looks == draws:
        return wilson(int(correct.all(axis=1).sum()), len(correct), level)
    if not 1 <= looks < draws:
        raise ValueError(f"expected looks in 1..{draws}, got {looks}")
    hits = correct.sum(axis=1)
    return mean_accuracy((comb(hits, looks) / comb(draws, looks))[:, None], level)


def majority(predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> Bools:
    """Whether each image's label alone has the most of its N votes, `(n,)`; a tie is a miss.

    >>> majority(np.array([[1, 1, 2], [0, 1, 2]]), np.array([1, 0])).tolist()
    [True, False]
    """
    votes = (predictions[:, :, None] == np.arange(predictions.max() + 1)).sum(axis=1)
    rows = np.arange(len(labels))
    votes = np.pad(votes, ((0, 0), (0, max(0, labels.max() + 1 - votes.shape[1]))))
    own = votes[rows, labels].copy()
    votes[rows, labels] = -1
    return own > votes.max(axis=1)


def _student(values: Floats, extremes: tuple[float, float], level: float) -> tuple[float, float]:
    padded = np.append(values, extremes)
    middle, arm = padded.mean(), stdtrit(len(values) + 1, (1 + level) / 2) * stats.sem(padded)
    return float(middle - arm), float(middle + arm)
