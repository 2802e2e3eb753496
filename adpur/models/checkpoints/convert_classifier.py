"""CIFAR classifiers of other repositories as weights folders."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from adpur.errors import ConfigError
from adpur.models.checkpoints import files, zoo
from adpur.models.checkpoints.wrapped import Weights
from adpur.models.classifiers import Classifier


def is_classifier(state: Mapping[str, Any]) -> bool:
    """Whether a state dict is of a network that `convert_classifier` knows."""
    return "linear.weight" in state or "block1.layer.0.conv1.weight" in state


def convert_classifier(
    weights: Weights,
    folder: Path,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    activation: str,
    where: str,
) -> list[str]:
    """Write a CIFAR ResNet (option A) or WideResNet; their arguments are read off the weights."""
    classifier, arguments = read_classifier(weights, size, mean, std, activation, where)
    zoo.save_classifier(classifier, arguments, folder)
    told = ", ".join(f"{k} {v}" for k, v in arguments.items())
    return [
        *weights.notes,
        f"{type(classifier.net).__name__} with {told}",
        f"mean {list(mean)}, std {list(std)}: not in the file (--mean, --std)",
    ]


def read_classifier(
    weights: Weights,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    activation: str,
    where: str,
) -> tuple[Classifier, dict[str, Any]]:
    """The classifier of a checkpoint's weights, and the arguments that rebuild its network."""
    state = weights.state
    if not is_classifier(state):
        raise ConfigError(
            f"{where}: expected a CIFAR ResNet (layer1.0.conv1, linear) or a WideResNet "
            f"(block1.layer.0.conv1, fc), got {sorted(state)[:4]}"
        )
    if not mean or not std:
        raise ConfigError(
            f"{where}: how its images are normalised is not in the file; say --mean and --std "
            "(--mean 0 --std 1 if it takes [0, 1] as they are)"
        )
    resnet = "linear.weight" in state
    name, arguments = _resnet(state) if resnet else _wide(state, activation)
    net = zoo.build_classifier(name, arguments)
    counts = {k: v for k, v in net.state_dict().items() if k.endswith("num_batches_tracked")}
    state = counts | state  # files older than these counters, which nothing reads here
    if problems := list(files.misfits(net.state_dict(), state)):
        raise ConfigError(f"{where}: not a {name} of {arguments}: {'; '.join(problems[:3])}")
    net.load_state_dict(state)
    shape = (state["conv1.weight"].shape[1], size, size)
    return Classifier(net, shape, mean, std), arguments


def _resnet(state: dict[str, Tensor]) -> tuple[str, dict[str, Any]]:
    first = state["conv1.weight"]
    return "CifarResNet", {
        "blocks": _count(state, r"layer1\.(\d+)\."),
        "width": first.shape[0],
        "in_channels": first.shape[1],
        "classes": state["linear.weight"].shape[0],
    }


def _wide(state: dict[str, Tensor], activation: str) -> tuple[str, dict[str, Any]]:
    return "WideResNet", {
        "depth": 6 * _count(state, r"block1\.layer\.(\d+)\.") + 4,
        "widen": state["block1.layer.0.conv1.weight"].shape[0] // 16,
        "activation": activation,
        "classes": state["fc.weight"].shape[0],
    }


def _count(state: dict[str, Tensor], pattern: str) -> int:
    return 1 + max(int(found[1]) for key in state if (found := re.match(pattern, key)))
