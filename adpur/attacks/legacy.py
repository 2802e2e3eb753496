"""AutoAttack's `rand` as published and as repaired for ADDT, so that their bias can be shown.

Neither is for use: both report how often a defence was wrong on the draws that the search had
picked for being wrong. What they report is claimed; what the images are worth is judged as ever.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from adpur.attacks.ascent import Ascent, Copies, Point
from adpur.attacks.attack import Attack, check_budget
from adpur.threat.ball import Linf, Norm
from adpur.threat.losses import DLR, CrossEntropy, Loss
from adpur.threat.oracle import Look, Oracle
from adpur.types import ordered_mean

LOSSES: tuple[Loss, ...] = (CrossEntropy(), DLR())


def last_copy(x: Tensor, look: Look, y: Tensor) -> Point:
    """Only the gradient is a mean; loss and success are those of the last EOT copy alone."""
    wrong = look.logits[-1].argmax(1) != y
    return Point(x, look.loss[-1], ordered_mean(look.grad), wrong.double())


@dataclass(frozen=True)
class _Rand(Attack):
    """What both versions share: the search for one image by each of two losses."""

    eps: float = 8 / 255
    norm: Norm = Linf()
    steps: int = 100
    eot: int = 20

    def __post_init__(self) -> None:
        check_budget(self, "steps", "eot")

    def _found(self, oracle: Oracle, x: Tensor, gate: int) -> Tensor:
        """Published APGD: an iterate whose last copy was wrong, else the clean image.

        Images that are wrong on one draw are not attacked at all.
        """
        found, rows = x.clone(), _right(oracle, x, gate, 1).nonzero().flatten()
        if len(rows):
            ascent = Ascent(self.eps, self.norm, self.steps, Copies(self.eot, last_copy))
            point = ascent.climb(oracle.at(rows), x[rows]).strongest
            hit = point.strength > 0
            found[rows[hit]] = point.x[hit]
        return found

    def _tries(self, oracle: Oracle) -> Iterator[tuple[int, Oracle]]:
        for k, loss in enumerate(LOSSES):
            yield 2 * k + 1, replace(oracle, loss=loss).restarted(k)


@dataclass(frozen=True)
class AALegacy(_Rand):
    """AutoAttack `rand` as published (Croce & Hein 2020, version "rand"), wrong on random defences.

    One draw decides whether an image is attacked; any iterate whose last EOT copy is wrong is
    success for good, one chance in every step; steps and best points follow that one copy; a
    failure returns the clean image; one draw more sets the flag that is reported, and an image that
    has fallen once is never looked at again. On a null attack it claims 0.6 where 0.8 is true, and
    its images are hardly attacked.
    """

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class; claims the share of flags left standing."""
        result, robust = x.clone(), _right(oracle, x, 0, 1).bool()
        for gate, own in self._tries(oracle):
            rows = robust.nonzero().flatten()
            if not len(rows):
                break
            found = self._found(own.at(rows), x[rows], gate)
            fell = _right(own.at(rows), found, gate + 1, 1) == 0
            result[rows[fell]], robust[rows[fell]] = found[fell], False
        _claim(oracle, robust.double())
        return result


@dataclass(frozen=True)
class AAFixed(_Rand):
    """ADDT's repair of `rand`: flags become fractions of `draws` draws. Still wrong.

    Every image with a fraction above 0 is attacked by both losses, and the lowest fraction among
    the clean and the attacked images is reported: a minimum over the draws that are reported falls
    by luck alone, 0.75 where 0.81 is true. The search itself is the published one.

    Args:
        eps: radius in [0, 1] units.
        norm: Linf or L2.
        steps: iterations of each loss.
        eot: draws whose gradients are averaged.
        draws: predictions of each image.
    """

    draws: int = 20

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class; claims the lowest fractions."""
        result, share = x.clone(), _right(oracle, x, 0, self.draws)
        for gate, own in self._tries(oracle):
            rows = share.nonzero().flatten()
            if not len(rows):
                break
            found = self._found(own.at(rows), x[rows], gate)
            right = _right(own.at(rows), found, gate + 1, self.draws)
            lower = right < share[rows]
            result[rows[lower]], share[rows[lower]] = found[lower], right[lower]
        _claim(oracle, share)
        return result


def aa_legacy(eps: float = 8 / 255, norm: Norm = Linf(), steps: int = 100, eot: int = 20) -> Attack:
    """AutoAttack's `rand` as published: biased low and weak on random defences (`AALegacy`)."""
    return AALegacy(eps, norm, steps, eot)


def aa_fixed(eps: float = 8 / 255, norm: Norm = Linf(), steps: int = 100, eot: int = 20) -> Attack:
    """AutoAttack's `rand` as repaired for ADDT: less biased, as weak (`AAFixed`)."""
    return AAFixed(eps, norm, steps, eot)


def _right(oracle: Oracle, x: Tensor, gate: int, draws: int) -> Tensor:
    """Share of right answers `(B,)` on `draws` draws that belong to this look alone."""
    right = oracle.answers(x, draws, gate).argmax(2) == oracle.y
    return ordered_mean(right.double())


def _claim(oracle: Oracle, share: Tensor) -> None:
    if oracle.trace is not None:
        oracle.trace.claim(oracle.place, share)
