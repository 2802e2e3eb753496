"""Purifiers made of purifiers: rounds, and images of another size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from adpur.errors import ConfigError
from adpur.keyed.noise import Noise
from adpur.models.networks import Networks
from adpur.purify.base import (
    Around,
    Context,
    Levels,
    Purified,
    Purifier,
    Shape,
    batch_dependent,
    score_norms,
)
from adpur.purify.levels.level import ScoreNorm


@dataclass(frozen=True)
class Chain(Purifier):
    """Rounds, each on the last one's image (GDMP, GNS); every round draws its own noise.

    SSNI over a chain measures one norm, on the input, and reweights each round's own t*.

    Args:
        rounds: the purifiers, none of them a Chain.
        recompute: measure the norm of each round's own input instead, one EPS a round.
        original: pull every guided round towards the chain's input, as GDMP's released code does;
            False pulls each towards its own input, the image that the last round left.
    """

    rounds: Sequence[Purifier]
    recompute: bool = False
    original: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounds", tuple(self.rounds))  # YAML has lists
        if not self.rounds or any(_holds_chain(r) for r in self.rounds):
            raise ConfigError("Chain needs at least one round, and no Chain among them")
        if len({r.measure for r in self.rounds if r.measure is not None}) > 1:
            raise ConfigError("the rounds of a Chain must share one score norm")
        if self.recompute and batch_dependent(self.rounds):
            raise ConfigError(
                "Chain recompute measures score norms part by part of a batch, which Linear batch "
                "wants together; leave one of the two out"
            )

    @property
    def depth(self) -> int:
        """The sum of the rounds'."""
        return sum(r.depth for r in self.rounds)

    @property
    def measure(self) -> ScoreNorm | None:
        """The one the rounds share."""
        return next((r.measure for r in self.rounds if r.measure is not None), None)

    def check(self, nets: Networks, shape: Shape) -> None:
        """Each round's."""
        for r in self.rounds:
            r.check(nets, shape)

    def seen(self, x: Tensor) -> Tensor:
        """What the first round sees."""
        return self.rounds[0].seen(x)

    def levels(self, norm: Tensor, noise: Noise) -> Tensor:
        """Every round's, from the same norm."""
        return torch.cat([r.levels(norm, noise.fold(stage=k)) for k, r, _ in self._parts()])

    def steps(self, levels: Tensor, nets: Networks) -> Tensor:
        """The sum of the rounds'."""
        parts = [r.steps(levels[part], nets) for _, r, part in self._parts()]
        return torch.stack(parts).sum(0)

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        """Round after round."""
        snapped, nfe = [], torch.zeros(len(x), dtype=torch.int64)
        if self.original:
            context = replace(context, guide=x)
        for k, r, part in self._parts():
            keys, known = noise.fold(stage=k), levels.stages(part.start, part.stop)
            if k and self.recompute and r.measure is not None:
                known = _anew(r, x, keys, known, context)
                nfe += known.nfe
            out = r.purify(x, keys, known, context)
            x, nfe = out.image, nfe + out.nfe
            snapped.append(out.levels)
        return Purified(x, torch.cat(snapped), nfe)

    def _parts(self) -> Iterator[tuple[int, Purifier, slice]]:
        """Each round with its number and its part of the levels."""
        start = 0
        for k, r in enumerate(self.rounds):
            yield k, r, slice(start, start + r.depth)
            start += r.depth


@dataclass(frozen=True)
class Resized(Around):
    """Another purifier at `size` x `size`, bilinear both ways inside the graph.

    DiffPure's ImageNet rows: classifier at 224, diffusion model at 256.
    """

    inner: Purifier
    size: int = 256

    def check(self, nets: Networks, shape: Shape) -> None:
        """The inner purifier's, at its own size."""
        self.inner.check(nets, None if shape is None else (shape[0], self.size, self.size))

    def seen(self, x: Tensor) -> Tensor:
        """What the inner purifier sees."""
        return self.inner.seen(brought(x, (self.size, self.size)))

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        """Up, inner, down."""
        size = (self.size, self.size)
        if context.guide is not None:
            context = replace(context, guide=brought(context.guide, size))
        out = self.inner.purify(brought(x, size), noise, levels, context)
        return out._replace(image=brought(out.image, (x.shape[2], x.shape[3])))


def _holds_chain(purifier: Purifier) -> bool:
    inner = getattr(purifier, "inner", None)
    return isinstance(purifier, Chain) or (inner is not None and _holds_chain(inner))


def _anew(purifier: Purifier, x: Tensor, noise: Noise, known: Levels, context: Context) -> Levels:
    """Levels of this round's own input; constants to the gradient if the first ones were."""
    differentiated = known.t.requires_grad and torch.is_grad_enabled()
    with torch.set_grad_enabled(differentiated):
        norm, nfe = score_norms(purifier, x if differentiated else x.detach(), noise, context)
        norm = norm.cpu()
        return Levels(purifier.levels(norm, noise), norm, nfe)


def brought(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """Images at another size `(H, W)`, bilinear; themselves where it is theirs."""
    return (
        x if x.shape[2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False)
    )
