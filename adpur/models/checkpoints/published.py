"""Classifiers straight from the files others publish, without a folder in between."""

import os
from collections.abc import Sequence
from pathlib import Path

from adpur.errors import ConfigError
from adpur.models.checkpoints.convert_classifier import read_classifier
from adpur.models.checkpoints.unpickle import read_torch
from adpur.models.checkpoints.wrapped import find_state
from adpur.models.checkpoints.zoo import load_denoiser
from adpur.models.networks import Networks

VARIABLE = "ADPUR_CIFAR10_CLASSIFIER"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, with which the CIFAR-10 ResNets of `adpur weights` were trained."""


def cifar10_classifier(
    file: str | None = None,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    denoiser: str | None = None,
) -> Networks:
    """The classifier of a CIFAR ResNet or WideResNet checkpoint (`.th`, `.pt`), with a denoiser.

    Args:
        file: the checkpoint as published; $ADPUR_CIFAR10_CLASSIFIER by default.
        mean: what its images are normalised with.
        std: see mean.
        denoiser: a diffusion model's weights folder; None for the undefended classifier.

    Raises:
        ConfigError: where there is no such file, or its network is none that `adpur convert` knows.
    """
    place = file or os.environ.get(VARIABLE)
    if not place or not Path(place).is_file():
        raise ConfigError(
            f"expected a CIFAR-10 classifier's checkpoint, got {place or 'none'}; set {VARIABLE} "
            "to a file such as resnet56-4bfd9763.th, or write `file:` (adpur weights says whose)"
        )
    content = read_torch(Path(place))
    classifier = read_classifier(
        find_state(content, str(place)), 32, mean, std, "relu", str(place)
    )[0]
    return Networks(classifier, load_denoiser(denoiser) if denoiser else None)
