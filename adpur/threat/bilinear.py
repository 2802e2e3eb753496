"""The square between four pixels, inside which an image is bilinear."""

from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

STARTS = 5
"""Lines of a cell on which the nearest colour is looked for before it is refined."""
ROUNDS = 6
"""Refinements; from near a solution each squares its error."""


class Box(NamedTuple):
    """The part of a cell that may be searched: from and to, down and right, within [0, 1]."""

    down: tuple[float, float]
    right: tuple[float, float]


class Cell(NamedTuple):
    """x'(s, t) = corner + s down + t right + s t twist, s rows and t columns from the corner.

    One cell for each pixel, `(B, C, H, W)` all.
    """

    corner: Tensor
    down: Tensor
    right: Tensor
    twist: Tensor

    @classmethod
    def at(cls, x: Tensor, row: Tensor, column: Tensor) -> "Cell":
        """Of the images `x`, with these corners `(B, H, W)`; the border goes on for ever."""
        height, width = x.shape[2:]

        def pixel(down: int, right: int) -> Tensor:
            rows = (row + down).clamp(0, height - 1)
            place = rows * width + (column + right).clamp(0, width - 1)
            index = place.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
            return x.flatten(2).gather(2, index).view_as(x)

        here, under, beside = pixel(0, 0), pixel(1, 0), pixel(0, 1)
        return cls(here, under - here, beside - here, pixel(1, 1) - under - beside + here)

    def colour(self, s: Tensor, t: Tensor) -> Tensor:
        """x'(s, t)."""
        return self.corner + s * self.down + t * self.right + s * t * self.twist

    def slopes(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Its derivatives in s and in t."""
        return self.down + t * self.twist, self.right + s * self.twist


class Found(NamedTuple):
    """Places in cells, and their squared distances from a colour; `(B, 1, H, W)` all."""

    s: Tensor
    t: Tensor
    error: Tensor


def nearest(cell: Cell, colour: Tensor, box: Box) -> Found:
    """Where in the box a cell is nearest to `colour`.

    From the best places on a few lines down and across, which are exact, and so where a bound
    holds: Gauss-Newton steps where they help, each followed by the exact s and the exact t.
    """
    starts = [_along(cell, colour, t, box) for t in _lines(colour, *box.right)]
    starts += [_down(cell, colour, s, box) for s in _lines(colour, *box.down)]
    return reduce(_better, (_refined(cell, colour, start, box) for start in starts))


def _lines(like: Tensor, low: float, high: float) -> list[Tensor]:
    shares = (k / (STARTS - 1) for k in range(STARTS))
    return [torch.full_like(like[:, :1], low + (high - low) * share) for share in shares]


def _refined(cell: Cell, colour: Tensor, best: Found, box: Box) -> Found:
    for _ in range(ROUNDS):
        best = _better(best, _newton(cell, colour, best, box))
        best = _better(best, _along(cell, colour, best.t, box))
        best = _better(best, _down(cell, colour, best.s, box))
    return best


def _better(one: Found, other: Found) -> Found:
    rows = other.error < one.error
    return Found(*(torch.where(rows, b, a) for a, b in zip(one, other, strict=True)))


def _measured(cell: Cell, colour: Tensor, s: Tensor, t: Tensor) -> Found:
    gap = cell.colour(s, t) - colour
    return Found(s, t, dot(gap, gap))


def _along(cell: Cell, colour: Tensor, t: Tensor, box: Box) -> Found:
    """The nearest place at this t: a quadratic in s."""
    slope, _ = cell.slopes(t, t)
    gap = colour - cell.corner - t * cell.right
    s = (dot(gap, slope) / dot(slope, slope).clamp_min(1e-30)).clamp(*box.down)
    return _measured(cell, colour, s, t)


def _down(cell: Cell, colour: Tensor, s: Tensor, box: Box) -> Found:
    """The nearest place at this s."""
    across = Cell(cell.corner, cell.right, cell.down, cell.twist)
    t, _, error = _along(across, colour, s, Box(box.right, box.down))
    return Found(s, t, error)


def _newton(cell: Cell, colour: Tensor, at: Found, box: Box) -> Found:
    """A damped Gauss-Newton step, kept in the box: (J'J + m) d = -J'(x' - colour)."""
    gap, (a, b) = cell.colour(at.s, at.t) - colour, cell.slopes(at.s, at.t)
    aa, bb, ab = dot(a, a), dot(b, b), dot(a, b)
    damping = 1e-9 * (aa + bb) + 1e-30  # grey images have one equation for two unknowns
    aa, bb, ga, gb = aa + damping, bb + damping, dot(gap, a), dot(gap, b)
    room = aa * bb - ab * ab
    s = (at.s - (bb * ga - ab * gb) / room).clamp(*box.down)
    t = (at.t - (aa * gb - ab * ga) / room).clamp(*box.right)
    return _measured(cell, colour, s, t)


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Sum over channels `(B, 1, H, W)`, added in a fixed order."""
    return reduce(torch.add, (a * b).unbind(1)).unsqueeze(1)
