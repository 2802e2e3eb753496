"""What the judge says of an image, written by hand."""

from adpur.judging.scoreboard import Score


def score(index: int, predictions: list[int], label: int = 1) -> Score:
    n = len(predictions)
    return Score(index, label, predictions, [0.0] * n, [[1.0]] * n, [[1.0]] * n, [None] * n, 5, 0.1)
