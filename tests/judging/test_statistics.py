"""Estimands and intervals against hand counts and other implementations."""

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scores import score

from adpur.judging.scoreboard import Column, Outcome
from adpur.judging.statistics import (
    Estimate,
    majority,
    mcnemar,
    mean_accuracy,
    paired_bootstrap,
    paired_difference,
    wilson,
    worst_of,
)


def voted(predictions: NDArray[np.int64], labels: NDArray[np.int64]) -> Estimate:
    return wilson(int(majority(predictions, labels).sum()), len(labels))


def test_wilson_is_scipys() -> None:
    low, high = stats.binomtest(7, 20).proportion_ci(method="wilson")
    assert wilson(7, 20) == (0.35, low, high)


def test_the_interval_of_the_mean_is_clustered_by_image() -> None:
    """Images that are all right or all wrong: 20 draws each add no evidence."""
    correct = np.repeat([[1.0], [0.0]], 50, axis=0) @ np.ones((1, 20))
    clustered, one_draw = mean_accuracy(correct), mean_accuracy(correct[:, :1])
    assert clustered == one_draw
    assert clustered.high - clustered.low > 4 * (0.5 * 0.5 / 2000) ** 0.5
    by_wilson = wilson(50, 100)
    assert clustered.low == pytest.approx(by_wilson.low, abs=0.005)


POPULATIONS = {  # per-image chances to be right, drawn for n images
    "nearly all right": lambda rng, n: np.where(rng.random(n) < 0.97, 1.0, rng.uniform(0, 1, n)),
    "two kinds of exception": lambda rng, n: rng.choice([1.0, 0.9, 0.0], n, p=[0.98, 0.01, 0.01]),
    "nearly all wrong": lambda rng, n: np.where(rng.random(n) < 0.95, 0.0, rng.uniform(0, 0.5, n)),
    "high": lambda rng, n: rng.beta(30, 1, n),
    "attacked": lambda rng, n: rng.beta(0.5, 0.5, n),
    "middling": lambda rng, n: rng.beta(2, 2, n),
}


IMAGES, DRAWS, RUNS = 128, 10, 1000


@lru_cache
def evaluations(name: str) -> tuple[np.ndarray, np.ndarray]:
    """1,000 simulated correctness matrices, and the chances of many more images."""
    rng, draw = np.random.default_rng(1), POPULATIONS[name]
    p = draw(rng, RUNS * IMAGES).reshape(RUNS, IMAGES, 1)
    return (rng.random((RUNS, IMAGES, DRAWS)) < p).astype(float), draw(rng, 300_000)


def covered(intervals: Iterable[Estimate], truth: float) -> int:
    return sum(found.low <= truth <= found.high for found in intervals)


@pytest.mark.parametrize("name", POPULATIONS)
def test_intervals_of_the_mean_cover_what_they_claim(name: str) -> None:
    """92.9 % is 95 % less three standard errors of a thousand runs."""
    matrices, chances = evaluations(name)
    found = [mean_accuracy(correct) for correct in matrices]
    assert covered(found, chances.mean()) >= 929
    assert all(e.low <= e.value <= e.high for e in found)


@pytest.mark.parametrize("name", POPULATIONS)
def test_intervals_of_worst_and_majority_cover_what_they_claim(name: str) -> None:
    """Of ten draws, of three, and more than half of ten; not too wide where many images decide.

    Where half an image of 128 is expected to pass, Wilson covers 91.3 % (that none or one does)
    and the exact binomial interval 98.6: counts this small allow nothing between.
    """
    matrices, p = evaluations(name)
    labels = np.zeros(IMAGES, dtype=np.int64)
    most = stats.binom.sf(DRAWS // 2, DRAWS, p).mean()
    for truth, found in (
        ((p**DRAWS).mean(), [worst_of(c) for c in matrices]),
        ((p**3).mean(), [worst_of(c, 3) for c in matrices]),
        (most, [voted((1 - c).astype(int), labels) for c in matrices]),
    ):
        assert covered(found, truth) >= (929 if truth * IMAGES >= 1 else 885)
        if 0.1 < truth < 0.9:
            assert covered(found, truth) <= 971


@pytest.mark.parametrize("name", POPULATIONS)
def test_paired_intervals_cover_what_they_claim(name: str) -> None:
    """A second row that is worse on one image in twenty, on its own draws."""
    rng, draw = np.random.default_rng(1), POPULATIONS[name]
    p = draw(rng, RUNS * IMAGES).reshape(RUNS, IMAGES, 1)
    q = np.where(rng.random(p.shape) < 0.05, p / 2, p)
    first, second = ((rng.random((RUNS, IMAGES, DRAWS)) < v).astype(float) for v in (p, q))
    truth = 0.05 * draw(rng, 300_000).mean() / 2
    pairs = zip(first, second, strict=True)
    assert covered((paired_difference(*pair) for pair in pairs), truth) >= 929


def test_the_bootstrap_agrees_where_many_images_differ() -> None:
    rng = np.random.default_rng(0)
    first, second = ((rng.random((400, 10)) < rng.random((400, 1))).astype(float) for _ in "ab")
    students, found = paired_difference(first, second), paired_bootstrap(first, second)
    assert found == paired_bootstrap(first, second)  # fixed seed
    assert found[1:] == pytest.approx(students[1:], abs=0.006)


def test_the_bootstrap_is_blind_where_no_image_differs() -> None:
    """Why it is not the primary comparison."""
    same = np.ones((50, 3))
    assert paired_bootstrap(same, same) == (0, 0, 0)
    assert paired_difference(same, same).low < 0 < paired_difference(same, same).high
    assert paired_bootstrap(same[:1], same[:1])[1:] == (-1, 1)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 0), (7, 3)])
def test_mcnemar_is_the_binomial_test_of_the_discordant_images(first: int, second: int) -> None:
    one = np.array([True] * first + [False] * second + [True, False] * 9)
    other = np.array([False] * first + [True] * second + [True, False] * 9)
    found = mcnemar(one, other)
    n = first + second
    tail = sum(math.comb(n, k) for k in range(max(first, second), n + 1)) / 2**n
    assert found[:2] == (first, second) and found.p == pytest.approx(min(1, 2 * tail))
    assert mcnemar(other, one).p == found.p


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_no_interval_is_a_point(share: float) -> None:
    found = mean_accuracy(np.full((2, 1), share))
    assert found.low < found.high and found.value == share


def test_worst_and_majority() -> None:
    predictions = np.array([[1, 1, 1], [1, 1, 0], [2, 1, 0], [3, 3, 1]])
    labels = np.array([1, 1, 1, 1])
    assert worst_of((predictions == 1).astype(float)).value == 0.25
    assert majority(predictions, labels).tolist() == [True, True, False, False]  # ties miss


def test_a_label_nobody_predicts_is_a_miss() -> None:
    assert not majority(np.array([[0, 0]]), np.array([7])).any()


def test_paired_difference_is_narrower_than_the_unpaired_one() -> None:
    rng = np.random.default_rng(0)
    first = (rng.random((200, 10)) < rng.random((200, 1))).astype(float)
    second = first.copy()
    second[:40] = 0
    paired = paired_difference(first, second)
    assert paired.low > 0
    assert paired.high - paired.low < mean_accuracy(first).high - mean_accuracy(first).low


def test_an_outcome_counts_each_image_once() -> None:
    outcome = Outcome.of([score(4, [1, 0]), score(2, [1, 1]), score(4, [1, 0])])
    assert outcome.images.tolist() == [2, 4]
    assert outcome.correct.tolist() == [[1, 1], [1, 0]]
    summary = outcome.summary()
    assert summary["acc"] == 0.75 and summary["worst_of_n"] == 0.5
    assert summary["images"] == 2 and summary["draws"] == 2 and summary["t_mean"] == 1


def test_a_single_miss_never_narrows_an_interval() -> None:
    perfect = np.ones((128, 10))
    missed = perfect.copy()
    missed[0, 0] = 0
    one, other = mean_accuracy(perfect), mean_accuracy(missed)
    assert other.low < one.low and other.high - other.low >= one.high - one.low - 0.005


@pytest.mark.parametrize(
    ("column", "clean"), [(Column("a"), True), (Column("a", "pgd", 0.0), False)]
)
def test_a_null_attack_is_not_the_clean_column(column: Column, clean: bool) -> None:
    assert column.clean is clean
