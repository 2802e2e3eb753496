"""One defence of a table."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from adpur.attacks.attack import differentiates
from adpur.defense.defense import Defense
from adpur.defense.ensemble import Ensemble, Single
from adpur.errors import ConfigError
from adpur.judging.trial import AttackBlock
from adpur.lit.data.base import ImageData
from adpur.models.gate import Seen, first_look, named
from adpur.models.networks import Networks
from adpur.purify.base import Purifier

REMAIN = "Square, SPSA, RandomNoise and Saved remain"
"""Attacks that ask for no gradient."""


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


def check_rows(
    defenses: Mapping[str, Defense],
    placed: Iterable[tuple[AttackBlock, str]],
    data: ImageData,
    device: torch.device,
) -> tuple[list[str], dict[str, int]]:
    """Refuse images, labels or attacks that a row's classifier cannot take.

    Returns what to tell, and how many classes each row's classifier has. Every classifier is
    looked at once (`adpur.models.gate.first_look`).
    """
    x, _, index = (part[None].to(device) for part in data.split(data.evaluate)[data.subset[0]])
    looks: dict[tuple[int, int], Seen] = {}
    told: list[str] = []
    classes: dict[str, int] = {}
    for row, defense in defenses.items():
        with named(f"row {row!r}"):
            key = (id(defense.networks), defense.rows)
            if key not in looks:
                image = defense.validated(x)
                looks[key] = first_look(defense.networks, image, index, defense.rows)
            classes[row] = looks[key].classes
            told += check_labels(classes[row], data)
    for block, row in placed:
        attacked = defenses[block.attacked(row)]
        blind = looks[id(attacked.networks), attacked.rows].blind
        if blind and (differentiates(block.attack) or block.cosine):
            raise ConfigError(
                f"block {block.name!r}, row {row!r}: no gradient reaches the images: {blind}"
                f"; {REMAIN}, or take the step that lets none through out of the classifier into a "
                "purifier, and differentiate past it with gradient: adpur.BPDA"
            )
    return list(dict.fromkeys(told)), classes


def check_labels(classes: int, data: ImageData) -> list[str]:
    """Refuse labels that cannot be those of a classifier with so many logits.

    Where only some classes have a folder, the line that says which class each is taken for.
    """
    if not data.classes:
        raise ConfigError("the images have no labels, and nothing can be right or wrong")
    if data.classes > classes:
        raise ConfigError(
            f"the classifier has {classes} classes, the data {data.classes}{_last(data)}"
        )
    few = 0 < len(data.labels) < classes
    if few and data.guessed:
        raise ConfigError(
            f"the classifier has {classes} classes, and {len(data.labels)} have a folder "
            f"({mapping(data.labels)}): which ones? List the classifier's classes in `names:` of "
            "the data, or call the folders by their class numbers"
        )
    head = f"labels: {len(data.labels)} of the classifier's {classes} classes have a folder"
    return [f"{head}: {mapping(data.labels)}"] if few else []


def mapping(labels: Mapping[str, int]) -> str:
    """Which class each name is.

    >>> mapping({"cat": 0, "dog": 3})
    'cat is 0, dog is 3'
    """
    told = [f"{name} is {k}" for name, k in list(labels.items())[:8]]
    return ", ".join([*told, *(["..."] if len(labels) > 8 else [])])


def _last(data: ImageData) -> str:
    """Which folder asks for the highest class."""
    if not data.labels:
        return ""
    name, number = max(data.labels.items(), key=lambda item: item[1])
    return (
        f": folder {name} is class {number}, and classes count from 0 (`names:` of the data says "
        "otherwise)"
    )


def blind_rows(networks: Networks, data: ImageData, rows: int, device: torch.device) -> str:
    """Why no gradient of a classifier reaches the images of some data; empty where it does."""
    x, _, index = (part[None].to(device) for part in data.split(data.evaluate)[data.subset[0]])
    return first_look(networks.to(device), x, index, rows).blind
