"""The images that a bounded flow field can make of one, which lie in no Lp ball."""

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from adpur.threat.ball import Admitted, Threat
from adpur.threat.bilinear import Box, Cell, dot, nearest

EXPLAINED = 1e-16
"""A squared distance, fp64, that no other displacement has to improve on."""


@dataclass(frozen=True)
class Flow(Threat):
    """x'(p) = x(p + f(p)), bilinear, with |f| <= eps in each direction (Xiao et al. 2018).

    f is in shares of half the image, the unit of DiffPure's StAdv: its 0.05 is 0.8 pixels of a
    CIFAR image. Beyond the border lies the border. As every pixel moves by itself, whether an image
    can be reached is a small problem for each: the displacement in the square of radius eps whose
    colour is nearest. What is judged is the image of the displacements found, so that an image
    nothing explains is mended, and its distance told as excess.
    """

    def admitted(self, image: Tensor, origin: Tensor, eps: float) -> Admitted:
        """`origin` warped by the flow that comes nearest to `image`; the size is that flow's,
        not always the least; the excess is in pixel values.

        Costs some hundred passes over the image for every cell of pixels within eps.
        """
        flow = explained(image.double(), origin.double(), eps)
        found = warped(origin.double(), flow).to(origin)
        size = (flow / half(flow)).abs().flatten(1).amax(1)
        return Admitted(found, size, (image - found).abs().flatten(1).amax(1).double())

    def ascent(self, x: Tensor, grad: Tensor, eps: float) -> Tensor:
        """Every pixel moves to where the linearised loss is greatest."""
        return warped(x, furthest(x, grad, eps))

    def reach(self, radius: float, pixels: int) -> None:
        """No flow makes a grey image of black and white."""
        return None


def half(x: Tensor) -> Tensor:
    """Half the height and the width of images, in pixels `(2, 1, 1)`: the unit of eps."""
    return torch.tensor(x.shape[2:], dtype=x.dtype, device=x.device).view(2, 1, 1) / 2


def warped(x: Tensor, flow: Tensor) -> Tensor:
    """`x` `(B, C, H, W)` seen through a flow `(B, 2, H, W)` of rows and columns in pixels.

    The result is exact where the flow is whole: in normalised coordinates, as `grid_sample` has
    them, rounding alone would move an image.
    """
    cell, down, right = _under(x, flow)
    return cell.colour(down, right).clamp(0, 1)


def pulled(x: Tensor, flow: Tensor, grad: Tensor) -> Tensor:
    """A gradient in the warped image brought to its flow `(B, 2, H, W)`: sum_c g_c dx'_c / df.

    At a whole pixel, where x' has a kink, it is the slope below and to the right.
    """
    cell, down, right = _under(x, flow)
    slopes = cell.slopes(down, right)
    return torch.cat([dot(grad, slope) for slope in slopes], 1)


def furthest(x: Tensor, grad: Tensor, eps: float) -> Tensor:
    """The flow `(B, 2, H, W)` in pixels, within eps, that raises sum_c g_c x'_c the most.

    Bilinear in every cell of pixels, it is greatest at a corner of one or where eps cuts it.
    """
    stops = [sorted({-r, *range(math.ceil(-r), math.floor(r) + 1), r}) for r in _reach(x, eps)]
    flow = torch.zeros_like(x[:, :1]).repeat(1, 2, 1, 1)
    most = torch.zeros_like(x[:, :1])
    for move in product(*stops):
        moved = torch.tensor(move, dtype=x.dtype, device=x.device).view(1, 2, 1, 1).expand_as(flow)
        gain = dot(grad, warped(x, moved) - x)
        flow, most = torch.where(gain > most, moved, flow), torch.maximum(gain, most)
    return flow


def explained(image: Tensor, origin: Tensor, eps: float) -> Tensor:
    """The flow `(B, 2, H, W)` in pixels, within eps, that brings `origin` nearest to `image`.

    Pixels that are as they were have not moved.
    """
    reach = _reach(origin, eps)
    flow = torch.zeros_like(origin[:, :1]).repeat(1, 2, 1, 1)
    least = dot(image - origin, image - origin)
    ranges = (range(math.floor(-r), math.ceil(r)) for r in reach)
    for corner in sorted(product(*ranges), key=lambda c: (c[0] + 0.5) ** 2 + (c[1] + 0.5) ** 2):
        if not (least > EXPLAINED).any():
            break
        box = Box(
            *((max(0.0, -r - k), min(1.0, r - k)) for r, k in zip(reach, corner, strict=True))
        )
        cell = Cell.at(origin, *_pixels(origin, *corner))
        down, right, error = nearest(cell, image, box)
        moved = torch.cat((corner[0] + down, corner[1] + right), 1)
        better = (error < least) & (least > EXPLAINED)
        flow, least = torch.where(better, moved, flow), torch.where(better, error, least)
    return flow


def _reach(x: Tensor, eps: float) -> list[float]:
    """Rows and columns within eps."""
    return [eps * side / 2 for side in x.shape[2:]]


def _under(x: Tensor, flow: Tensor) -> tuple[Cell, Tensor, Tensor]:
    """The cells that a flow leads to, and the places in them `(B, 1, H, W)`."""
    corner = flow.floor()
    place, whole = flow - corner, corner.long()
    cell = Cell.at(x, *_pixels(x, whole[:, 0], whole[:, 1]))
    return cell, place[:, :1], place[:, 1:]


def _pixels(x: Tensor, down: Tensor | int, right: Tensor | int) -> tuple[Tensor, Tensor]:
    """Row and column `(B, H, W)` of every pixel, moved by whole pixels."""
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device).view(1, -1, 1) + down
    columns = torch.arange(width, device=x.device).view(1, 1, -1) + right
    return rows.expand(len(x), height, width), columns.expand(len(x), height, width)
