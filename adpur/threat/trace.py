"""What an attack asked, image by image: for the trust report, and for accuracy against compute."""

from collections.abc import Callable

import torch
from torch import Tensor

from adpur.types import ordered_mean

Watch = Callable[[Tensor, Tensor], None]
"""`watch(rows, x)`: sees where an attack asks for a gradient, before anything moves on."""


def unwatched(rows: Tensor, x: Tensor) -> None:
    """Look at nothing."""


class Trace:
    """A read-only observer of an oracle's queries on B images.

    Args:
        images: B.
        tell: called before every query; may stop the attack by raising.
        watch: shown the images of every gradient query: the iterates of an ascent.

    Attributes:
        loss: of each image, the mean loss over EOT copies at every gradient query, in order.
        gradients, values: rows differentiated and rows only evaluated, of each image.
        zero: gradient queries of each image whose mean gradient was zero.
        agreement: sum over gradient queries of the cosine between two halves of the copies.
        claims: the shares of right answers an attack itself reports, one for every pool of draws.
        outside: how far each returned image lay outside the ball or the range.
    """

    def __init__(
        self, images: int, tell: Callable[[str], None] = lambda text: None, watch: Watch = unwatched
    ) -> None:
        self.tell, self.watch = tell, watch
        self.loss: list[list[float]] = [[] for _ in range(images)]
        self.gradients, self.values = [0] * images, [0] * images
        self.zero, self.agreement = [0] * images, [0.0] * images
        self.claims: list[list[float]] = [[] for _ in range(images)]
        self.outside = [0.0] * images

    def gradient(self, rows: Tensor, x: Tensor, value: Tensor, grad: Tensor) -> None:
        """Note losses `(E, B)` and gradients `(E, B, ...)` at `x`, `rows` of the batch."""
        self.watch(rows, x.detach())
        loss, zero = ordered_mean(value), ~ordered_mean(grad).flatten(1).any(1)
        noted = zip(rows.tolist(), loss.tolist(), zero.tolist(), _halves(grad), strict=True)
        for i, at, lost, cosine in noted:
            self.loss[i].append(at)
            self.gradients[i] += len(value)
            self.zero[i] += lost
            self.agreement[i] += cosine
        self.tell(f"step {len(self.loss[int(rows[0])])}  loss {loss.mean():.2f}")

    def value(self, rows: Tensor, copies: int) -> None:
        """Note evaluations of `copies` draws at `rows` of the batch."""
        for i in rows.tolist():
            self.values[i] += copies
        self.tell(f"query {self.values[int(rows[0])]}")

    def claim(self, rows: Tensor, right: Tensor) -> None:
        """Note the shares of right answers `(B,)` an attack reports of its own images."""
        for i, share in zip(rows.tolist(), right.tolist(), strict=True):
            self.claims[i].append(share)

    @property
    def claimed(self) -> list[float | None]:
        """The mean of each image's claims; None where there is none."""
        return [sum(told) / len(told) if told else None for told in self.claims]

    def zero_share(self, i: int) -> float | None:
        """Share of image i's gradient queries that returned zero; None if there were none."""
        return self.zero[i] / len(self.loss[i]) if self.loss[i] else None

    def agreed(self, i: int) -> float | None:
        """Mean cosine between halves of image i's EOT copies; None where there was one copy."""
        mean = self.agreement[i] / len(self.loss[i]) if self.loss[i] else float("nan")
        return None if mean != mean else mean


def _halves(grad: Tensor) -> list[float]:
    """Cosines `(B,)` between the means of the first and the second half of E copies; NaN at 1."""
    if len(grad) < 2:
        return [float("nan")] * grad.shape[1]
    half = len(grad) // 2
    one, two = (ordered_mean(g).double().flatten(1) for g in (grad[:half], grad[half : 2 * half]))
    scale = (one.norm(dim=1) * two.norm(dim=1)).clamp_min(1e-300)
    return torch.where(scale > 1e-299, (one * two).sum(1) / scale, 0.0).tolist()
