"""Adam's direction, for searches whose steps depend on it row by row."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma & Ba 2015) of rows `(B, ...)`; torch's own has one second moment per entry.

    Args:
        mean, square: running means of the gradient and of its square.
        steps: gradients seen.
    """

    mean: Tensor
    square: Tensor
    steps: int = 0

    @classmethod
    def of(cls, x: Tensor) -> "Adam":
        """Before the first gradient."""
        return cls(torch.zeros_like(x), torch.zeros_like(x))

    def seen(self, grad: Tensor, moment: Tensor) -> "Adam":
        """After one more gradient, whose square is `moment`, or what stands for it."""
        mean = 0.9 * self.mean + 0.1 * grad
        square = 0.999 * self.square + 0.001 * moment
        return replace(self, mean=mean, square=square, steps=self.steps + 1)

    @property
    def direction(self) -> Tensor:
        """The mean over the root of the square, both without the bias of their start at zero."""
        mean, square = 1 - 0.9**self.steps, 1 - 0.999**self.steps
        return (self.mean / mean) / ((self.square / square).sqrt() + 1e-8)
