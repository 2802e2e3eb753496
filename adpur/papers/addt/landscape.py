"""The loss around an image, in the plane of two attacks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.papers.addt.directions import DW_BOX, WHITE_EOT, attacker, iterates, losses
from adpur.papers.analysis import Analysis, Answer, Cell, purifying
from adpur.papers.charts.maps import Surface, Track, surfaces
from adpur.papers.subject import Subject
from adpur.types import expand


class Plane(NamedTuple):
    """Two orthogonal directions `(B, C, H, W)`, fp64 and of one length in each image: `first`,
    and `second`, what another has beside it; zero where there is nothing beside it.
    """

    first: Tensor
    second: Tensor

    @classmethod
    def through(cls, one: Tensor, other: Tensor) -> "Plane":
        """The plane of two perturbations, `one` its first direction."""
        one, other = one.double(), other.double()
        rest = other - expand(_share(other, one), one) * one
        size, length = (v.flatten(1).norm(dim=1) for v in (one, rest))
        flat = length <= 1e-9 * other.flatten(1).norm(dim=1)
        scale = torch.where(flat, 0.0, size / length.clamp_min(1e-300))
        return cls(one, expand(scale, rest) * rest)

    def at(self, a: float, b: float) -> Tensor:
        """The perturbation with these coordinates."""
        return a * self.first + b * self.second

    def project(self, delta: Tensor) -> Tensor:
        """Coordinates `(B, 2)` of the nearest point of the plane."""
        delta = delta.double()
        return torch.stack([_share(delta, self.first), _share(delta, self.second)], 1)


@dataclass(frozen=True)
class LossLandscape(Analysis):
    """ADDT Fig. 3: loss around an image, over the plane of a DW-box and a white-box (EOT) attack.

    Across: along the final perturbation of the block's attack with all noise known (DW-box), whose
    length is the unit of both axes. Up: along the part of its white-box (EOT) perturbation that is
    orthogonal to it. The loss is the cross-entropy of the deployed defence under the known noise,
    its mean over the images, each with its own plane (appendix C: the first 128). Iterates are
    projected on the plane, as coordinates' means; the losses of the table are those of the
    iterates themselves. Grid and levels are not printed: here one scale for all rows. Points
    outside [0, 1] are brought to the range, as no defence takes them otherwise.

    Costs two attacks and points^2 purifications of every image.

    Args:
        points: of the grid, along each axis.
        span: the axes' ends, in lengths of the DW-box perturbation.
        block: attack block of the config; by default the first of each row.
    """

    points: int = 17
    span: tuple[float, float] = (-0.5, 1.5)
    block: str | None = None

    def __post_init__(self) -> None:
        if self.points < 2 or not self.span[0] < self.span[1]:
            raise ConfigError(
                f"expected points >= 2 and span low < high, got {self.points}, {self.span}"
            )

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """The surface and both attacks' tracks, a panel a row."""
        rows: list[tuple[Cell, ...]] = []
        drawn = []
        for subject in purifying(subjects):
            surface = self._surface(subject)
            drawn.append(surface)
            rows += _table(surface)
        heading = ("row", "what", "iteration", "along DW-box", "orthogonal to it", "loss")
        axes = ("along the DW-box attack", "orthogonal part of EOT")
        return Answer(heading, rows, surfaces(drawn, axes, "loss"))

    def _surface(self, subject: Subject) -> Surface:
        images = subject.images
        trials = {s.name: attacker(subject, self.block, *s[1:]) for s in (DW_BOX, WHITE_EOT)}
        found = {name: iterates(subject, trial) for name, trial in trials.items()}
        plane = Plane.through(*(path[-1] - images.x for path in found.values()))
        axis = torch.linspace(*self.span, self.points, dtype=torch.float64).tolist()
        grid = torch.stack([_moved(images.x, plane.at(a, b)) for b in axis for a in axis])
        known = trials[DW_BOX.name]

        def loss(x: Tensor) -> Tensor:
            return losses(known, images, x, 1, lambda t: subject.tell(f"{subject.row}: {t}")).mean(
                1
            )

        tracks = []
        for name, path in found.items():
            at = torch.stack([plane.project(x - images.x).mean(0) for x in path]).cpu()
            tracks.append(Track(name, at[:, 0].tolist(), at[:, 1].tolist(), loss(path).tolist()))
        height = loss(grid).view(self.points, self.points).numpy()
        return Surface(subject.row, axis, axis, height, tracks)


def _share(delta: Tensor, direction: Tensor) -> Tensor:
    """<delta, direction> / |direction|^2 `(B,)`; 0 along a zero direction."""
    dot, square = (v.flatten(1).sum(1) for v in (delta * direction, direction**2))
    return torch.where(square > 0, dot / square.clamp_min(1e-300), 0.0)


def _moved(x: Tensor, delta: Tensor) -> Tensor:
    return (x.double() + delta).clamp(0, 1).to(x.dtype)


def _table(surface: Surface) -> list[tuple[Cell, ...]]:
    """The surface line by line, then the tracks."""
    name, x, y, z, tracks = surface
    rows: list[tuple[Cell, ...]] = [
        (name, "surface", "", a, b, float(z[j, i]))
        for j, b in enumerate(y)
        for i, a in enumerate(x)
    ]
    for track in tracks:
        points = zip(track.x, track.y, track.z, strict=True)
        rows += [(name, track.name, k, *point) for k, point in enumerate(points)]
    return rows
