"""One defence of a table."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from adpur.defense.defense import Defense
from adpur.defense.ensemble import Ensemble, Single
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise
from adpur.lit.data.base import ImageData
from adpur.purify.base import Purifier


@dataclass(frozen=True)
class Row:
    """One defence of the table.

    Args:
        purifier: of [0, 1] images.
        network: the name of the networks it borrows.
        ensemble: how many of its purifications make one prediction, and how.
        random: whether two draws of an image can differ; measured by default. What is not random
            is attacked without EOT and evaluated on three draws, which must agree.
    """

    purifier: Purifier
    network: str = "default"
    ensemble: Ensemble = Single()
    random: bool | None = None


@torch.no_grad()
def check_classes(defenses: Mapping[str, Defense], data: ImageData, device: torch.device) -> None:
    """Refuse images a row cannot take, and labels that its classifier has no logit for."""
    x = data.split(data.evaluate)[data.subset[0]][0][None].to(device)
    for row, defense in defenses.items():
        key = Noise(torch.zeros(1, dtype=torch.int64, device=device))
        known = defense.networks.classify(defense.validated(x), key).shape[1]
        if data.classes > known:
            raise ConfigError(
                f"row {row!r}: the classifier has {known} classes, the data {data.classes}"
            )
