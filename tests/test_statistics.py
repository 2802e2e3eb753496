"""Estimands and intervals against hand counts and other implementations."""

import numpy as np
import pytest
from scipy import stats

from adpur.metrics.scoreboard import Column, Score, Scoreboard
from adpur.metrics.statistics import majority_of, mean_accuracy, paired_difference, wilson, worst_of


def test_wilson_is_scipys() -> None:
    low, high = stats.binomtest(7, 20).proportion_ci(method="wilson")
    assert wilson(7, 20) == (0.35, low, high)


def test_the_interval_of_the_mean_is_clustered_by_image() -> None:
    """Images that are all right or all wrong: 20 draws each add no evidence."""
    correct = np.repeat([[1.0], [0.0]], 50, axis=0) @ np.ones((1, 20))
    clustered = mean_accuracy(correct)
    assert clustered == wilson(50, 100)
    assert clustered.high - clustered.low > 4 * (0.5 * 0.5 / 2000) ** 0.5


def test_the_interval_covers_where_images_differ() -> None:
    """200 simulated evaluations; the binomial bound of 95 % +- 3 SE is 90 % to 99 %."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        p = rng.beta(2, 1, size=100)
        found = mean_accuracy(rng.binomial(1, p[:, None], size=(100, 5)).astype(float))
        hits += found.low <= 2 / 3 <= found.high
    assert 180 <= hits <= 198


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
    second[:10] = 0
    paired = paired_difference(first, second)
    assert paired.low > 0
    assert paired.high - paired.low < mean_accuracy(first).high - mean_accuracy(first).low


def score(index: int, predictions: list[int], label: int = 1) -> Score:
    n = len(predictions)
    return Score(index, label, predictions, [0.0] * n, [[1.0]] * n, [[1.0]] * n, [None] * n, 5, 0.1)


def test_the_scoreboard_counts_each_image_once() -> None:
    board = Scoreboard()
    board.update([score(4, [1, 0]), score(2, [1, 1])])
    board.update([score(4, [1, 0])])
    outcome = board.compute()
    assert outcome.images.tolist() == [2, 4]
    assert outcome.correct.tolist() == [[1, 1], [1, 0]]
    summary = outcome.summary()
    assert summary["acc"] == 0.75 and summary["worst_of_n"] == 0.5
    assert summary["images"] == 2 and summary["draws"] == 2 and summary["t_mean"] == 1


@pytest.mark.parametrize(
    ("column", "clean"), [(Column("a"), True), (Column("a", "pgd", 0.0), False)]
)
def test_a_null_attack_is_not_the_clean_column(column: Column, clean: bool) -> None:
    assert column.clean is clean
