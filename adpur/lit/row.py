"""One defence of a table."""

from dataclasses import dataclass

from adpur.ensemble import Ensemble, Single
from adpur.purify.base import Purifier


@dataclass(frozen=True)
class Row:
    """One defence of the table.

    Args:
        purifier: of [0, 1] images.
        network: the name of the networks it borrows.
        ensemble: how many of its purifications make one prediction, and how.
        random: whether two draws of an image can differ; measured by default. What is not random
            is attacked without EOT and evaluated on two draws, which must agree.
    """

    purifier: Purifier
    network: str = "default"
    ensemble: Ensemble = Single()
    random: bool | None = None
