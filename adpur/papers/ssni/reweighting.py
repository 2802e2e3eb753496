"""SSNI's ablations: accuracy over the temperature and the bias of t(x)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adpur.errors import ConfigError
from adpur.papers.analysis import Analysis, Answer
from adpur.papers.subject import Subject
from adpur.papers.sweeps import At, having, over, parts, with_purifier
from adpur.purify.base import replaced
from adpur.purify.diffusion import Diffusion
from adpur.purify.levels.curve import Curve, Linear, Sigmoid
from adpur.purify.levels.level import Reweighted

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
BIASES = (0.0, 0.1, 0.2, 0.3, 0.4)
"""Of the row's own t*."""


@dataclass(frozen=True)
class TauAccuracy(Analysis):
    """SSNI Fig. 3: accuracy over the temperature tau of the sigmoid, clean and under attack.

    Of rows whose t(x) has a Sigmoid. Tau is in units of the score norm, or in standard deviations
    of the clean norms where the row says `relative`. Every tau costs the block's whole attack. The
    paper gives standard deviations over three runs; these are 95 % intervals over images.

    Args:
        taus: a point each; by default a quarter of the row's own to four times as much.
        blocks: attack blocks of the config; by default the first of each row.
        eps: radius; by default the largest of each block.
    """

    taus: tuple[float, ...] = ()
    blocks: tuple[str, ...] = ()
    eps: float | None = None

    def __post_init__(self) -> None:
        if min(self.taus, default=1) <= 0:
            raise ConfigError(f"expected taus > 0, got {self.taus}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A curve a row."""
        points = (
            At(subject.row, tau, _bent(subject, tau=tau))
            for subject in curved(subjects, Sigmoid)
            for tau in self.taus or [factor * _tau(subject) for factor in FACTORS]
        )
        return over("tau", points, self.blocks, self.eps, log=True)


@dataclass(frozen=True)
class BiasAccuracy(Analysis):
    """SSNI Tables 8 and 9: accuracy over the bias b of the reweighting, clean and under attack.

    Of rows whose t(x) has a Linear or a Sigmoid; b is in the unit of t*, and t(x) goes up to
    t* + b. Every b costs the block's whole attack.

    Args:
        biases: a point each; by default 0 to 0.4 times the row's own t*.
        blocks: attack blocks of the config; by default the first of each row.
        eps: radius; by default the largest of each block.
    """

    biases: tuple[float, ...] = ()
    blocks: tuple[str, ...] = ()
    eps: float | None = None

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A curve a row."""
        points = (
            At(subject.row, bias, _lifted(subject, bias))
            for subject in curved(subjects, Linear, Sigmoid)
            for bias in self.biases or [share * _base(subject) for share in BIASES]
        )
        return over("bias b", points, self.blocks, self.eps)


def curved(subjects: Sequence[Subject], *kinds: type[Curve]) -> list[Subject]:
    """The rows whose t(x) all follows curves of these kinds."""
    found = [
        s
        for s in having(subjects, Reweighted)
        if all(isinstance(level.curve, kinds) for level in parts(s.defense.purifier, Reweighted))
    ]
    if not found:
        told = " or ".join(kind.__name__ for kind in kinds)
        raise ConfigError(f"expected a row whose t(x) has a {told}, got none of that curve")
    return found


def _bent(subject: Subject, **settings: float) -> Subject:
    """The row with other settings of its curve."""

    def change(level: Reweighted) -> Reweighted:
        return replace(level, curve=replace(level.curve, **settings))  # type: ignore[type-var]

    return with_purifier(subject, replaced(subject.defense.purifier, Reweighted, change))


def _lifted(subject: Subject, bias: float) -> Subject:
    """The row with another b, whose ceiling t* + b is in its schedule."""
    own = subject.defense.networks.denoiser.schedule
    walks = parts(subject.defense.purifier, Diffusion)
    end = min(((walk.schedule or own).end for walk in walks), default=own.end)
    base = _base(subject)
    if not 0 <= base + bias <= end:
        raise ConfigError(f"expected biases with t* + b in 0..{end:g}, got {base:g} + {bias:g}")
    return _bent(subject, bias=bias)


def _base(subject: Subject) -> float:
    """The row's own t*."""
    return parts(subject.defense.purifier, Reweighted)[0].base


def _tau(subject: Subject) -> float:
    """The row's own."""
    curves = [level.curve for level in parts(subject.defense.purifier, Reweighted)]
    return max(curve.tau for curve in curves if isinstance(curve, Sigmoid))
