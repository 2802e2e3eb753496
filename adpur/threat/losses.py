"""What an attack raises: per-row losses of logits."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from adpur.errors import ConfigError


class Loss(ABC):
    """What an attack raises; with a target, what brings the row closer to that class."""

    @abstractmethod
    def loss(self, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """Per-row losses `(B,)` from logits `(B, classes)`, labels and targets `(B,)`."""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """-log softmax_y; targeted, log softmax_t."""

    def loss(self, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """Cross-entropy of each row."""
        if target is None:
            return F.cross_entropy(logits, y, reduction="none")
        return -F.cross_entropy(logits, target, reduction="none")


@dataclass(frozen=True)
class Margin(Loss):
    """max_{i != y} z_i - z_y, positive where the row is misclassified; targeted, z_t - z_y
    (Carlini & Wagner 2017).
    """

    def loss(self, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """The margin of each row."""
        return _best_other(logits, y, target) - _at(logits, y)


@dataclass(frozen=True)
class DLR(Loss):
    """Difference of logits ratio (Croce & Hein 2020, equations 6 and 7): a margin without scale.

    (max_{i != y} z_i - z_y) / (z_(1) - z_(3)), at least 3 classes; targeted,
    (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2), at least 4.
    """

    def loss(self, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """The ratio of each row."""
        wanted = 3 if target is None else 4
        if logits.shape[1] < wanted:
            raise ConfigError(
                f"DLR needs {wanted} classes{'' if target is None else ' when targeted'}, "
                f"got {logits.shape[1]}; use Margin"
            )
        top = logits.topk(wanted, 1).values
        third = top[:, 2] if target is None else (top[:, 2] + top[:, 3]) / 2
        spread = (top[:, 0] - third).clamp_min(1e-12)  # equal logits have no ratio
        return (_best_other(logits, y, target) - _at(logits, y)) / spread


@dataclass(frozen=True)
class Tangent(Loss):
    """The cross-entropy of `mean` logits `(B, classes)`, linear in each copy's.

    Its mean over the copies is that cross-entropy, and so is its mean gradient, although each copy
    is backed through alone. The `y` it is given are rows of `mean`.

    Args:
        mean: mean logits of the copies.
        label: true labels `(B,)`, or the classes aimed at.
        sign: -1 where `label` is aimed at.
    """

    mean: Tensor
    label: Tensor
    sign: int = 1

    def loss(self, logits: Tensor, y: Tensor, target: Tensor | None = None) -> Tensor:
        """Of each copy."""
        mean, label = self.mean[y], self.label[y]
        slope = torch.softmax(mean, 1) - F.one_hot(label, mean.shape[1])
        at_mean = F.cross_entropy(mean, label, reduction="none")
        return self.sign * (at_mean + ((logits - mean) * slope).sum(1))


def _at(logits: Tensor, label: Tensor) -> Tensor:
    return logits.gather(1, label.view(-1, 1)).squeeze(1)


def _best_other(logits: Tensor, y: Tensor, target: Tensor | None) -> Tensor:
    if target is not None:
        return _at(logits, target)
    own = F.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).amax(1)
