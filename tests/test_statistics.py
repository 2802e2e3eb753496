"""Estimands and intervals against hand counts and other implementations."""

import numpy as np
import pytest
from scipy import stats

from adpur.metrics.scoreboard import Column, Outcome, Score
from adpur.metrics.statistics import majority_of, mean_accuracy, paired_difference, wilson, worst_of


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


@pytest.mark.parametrize("name", POPULATIONS)
def test_intervals_cover_what_they_claim(name: str) -> None:
    """1,000 simulated evaluations of 128 images, 10 draws; 92.9 % is 95 % less 3 standard errors."""
    rng, draw = np.random.default_rng(1), POPULATIONS[name]
    truth = draw(rng, 10**6).mean()
    hits = 0
    for _ in range(1000):
        found = mean_accuracy((rng.random((128, 10)) < draw(rng, 128)[:, None]).astype(float))
        hits += found.low <= truth <= found.high
        assert found.low <= found.value <= found.high
    assert hits >= 929


def test_paired_intervals_cover_what_they_claim() -> None:
    """A second row that is worse on few images."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(1000):
        p = rng.beta(5, 1, 128)
        q = np.where(rng.random(128) < 0.05, p / 2, p)
        first, second = (rng.random((128, 10)) < v[:, None] for v in (p, q))
        found = paired_difference(first.astype(float), second.astype(float))
        hits += found.low <= 0.05 * 5 / 6 / 2 <= found.high
    assert hits >= 929


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_no_interval_is_a_point(share: float) -> None:
    found = mean_accuracy(np.full((2, 1), share))
    assert found.low < found.high and found.value == share


def test_worst_and_majority() -> None:
    predictions = np.array([[1, 1, 1], [1, 1, 0], [2, 1, 0], [3, 3, 1]])
    labels = np.array([1, 1, 1, 1])
    assert worst_of((predictions == 1).astype(float)).value == 0.25
    assert majority_of(predictions, labels).value == 0.5  # the three-way tie is a miss


def test_a_label_nobody_predicts_is_a_miss() -> None:
    assert majority_of(np.array([[0, 0]]), np.array([7])).value == 0


def test_paired_difference_is_narrower_than_the_unpaired_one() -> None:
    rng = np.random.default_rng(0)
    first = (rng.random((200, 10)) < rng.random((200, 1))).astype(float)
    second = first.copy()
    second[:40] = 0
    paired = paired_difference(first, second)
    assert paired.low > 0
    assert paired.high - paired.low < mean_accuracy(first).high - mean_accuracy(first).low


def score(index: int, predictions: list[int], label: int = 1) -> Score:
    n = len(predictions)
    return Score(index, label, predictions, [0.0] * n, [[1.0]] * n, [[1.0]] * n, [None] * n, 5, 0.1)


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
