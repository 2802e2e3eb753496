"""Whether a clean accuracy says that the classifier knows the labels at all."""

from adpur.judging.scoreboard import Outcome
from adpur.judging.statistics import mean_accuracy

FEW = 4
"""Images below which nothing is said: a sound defence may be wrong on all of them."""
ENOUGH = 16
"""Images from which an accuracy that could be chance is worth a warning."""


def at_chance(row: str, clean: Outcome, classes: int) -> str:
    """A line where the clean accuracy is at or below chance, or could well be; else empty.

    Chance is one in as many as the classifier has `classes`.
    """
    images, found = len(clean.images), mean_accuracy(clean.correct)
    if images < FEW or found.low > 1 / classes:
        return ""
    told = (
        f"row {row!r}: clean accuracy is {found.value:.1%} of {images} images, chance among "
        f"{classes} classes is {1 / classes:.1%}"
    )
    if found.value <= 1 / classes:
        return (
            f"fail: {told}: there is nothing to defend. Do the labels count as the classifier does "
            "(class folders, a subset, an offset of 1), are the images scaled and normalised once, "
            "are the weights loaded?"
        )
    return (
        f"warn: {told}: too close to tell them apart; take more images" if images >= ENOUGH else ""
    )
