"""What a purifier is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from adpur.diffusion.deviation import Path
from adpur.diffusion.reverse import Tap
from adpur.errors import ConfigError
from adpur.keyed.memory import Keep, Memory
from adpur.keyed.noise import Noise
from adpur.keyed.rows import calls_made, in_calls
from adpur.models.networks import Networks
from adpur.purify.levels.curve import Linear
from adpur.purify.levels.level import ScoreNorm
from adpur.types import to_signed

P = TypeVar("P", bound="Purifier")
Shape = tuple[int, ...] | None
"""(C, H, W) of the images a purifier will get, None if no network says."""


@dataclass(frozen=True)
class Context:
    """What a purifier borrows and how it is run.

    Args:
        nets: the networks.
        rows: R, rows of every network call.
        memory: what a differentiated step keeps.
        tap: observer.
        workers: threads that run contexts like this at the same time.
        path: collects how far walks stray, as part of the graph.
        guide: what guidance pulls towards, [0, 1] images `(B, C, H, W)` of the same rows; each
            purifier's own input if None. A `Chain` sets it for its rounds.
    """

    nets: Networks
    rows: int
    memory: Memory = field(default_factory=Keep)
    tap: Tap | None = None
    workers: int = 1
    path: Path | None = None
    guide: Tensor | None = None


class Levels(NamedTuple):
    """Raw levels `(S, B)` of every stage, the score norms `(B,)` behind them (NaN if none), and
    the measured network calls `(B,)` they cost; on the host.
    """

    t: Tensor
    score_norm: Tensor
    nfe: Tensor

    def at(self, rows: Tensor) -> "Levels":
        """The levels of some rows."""
        return Levels(self.t[:, rows], self.score_norm[rows], self.nfe[rows])

    def stages(self, first: int, last: int) -> "Levels":
        """Those of stages first..last-1."""
        return self._replace(t=self.t[first:last])


class Purified(NamedTuple):
    """A cleaned image in [0, 1], snapped levels `(S, B)`, measured reverse calls `(B,)`."""

    image: Tensor
    levels: Tensor
    nfe: Tensor


class Purifier(ABC):
    """A map from [0, 1] images to [0, 1] images that borrows networks and owns none.

    `purify` gets any number of rows and calls networks with exactly R of them.
    """

    @property
    @abstractmethod
    def depth(self) -> int:
        """S, how many noise levels it sets."""

    @property
    @abstractmethod
    def measure(self) -> ScoreNorm | None:
        """The score norm its levels need; None if they need none."""

    @abstractmethod
    def check(self, nets: Networks, shape: Shape) -> None:
        """Raise `ConfigError` if these settings cannot work with these networks and images."""

    @abstractmethod
    def seen(self, x: Tensor) -> Tensor:
        """`x` as its first network sees it, still in [0, 1]: where score norms are measured."""

    @abstractmethod
    def levels(self, norm: Tensor, noise: Noise) -> Tensor:
        """Raw noise levels fp64 `(S, B)` from score norms fp64 `(B,)`, NaN if not measured."""

    @abstractmethod
    def steps(self, levels: Tensor, nets: Networks) -> Tensor:
        """How many steps each row of levels `(S, B)` will take, int64 `(B,)`: its cost."""

    @abstractmethod
    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        """Clean `x` `(B, C, H, W)` in [0, 1]; differentiable unless the purifier says not."""


class Around(Purifier, ABC):
    """A purifier that changes how another is applied, not what it decides."""

    inner: Purifier

    @property
    def depth(self) -> int:
        """The inner purifier's."""
        return self.inner.depth

    @property
    def measure(self) -> ScoreNorm | None:
        """The inner purifier's."""
        return self.inner.measure

    def levels(self, norm: Tensor, noise: Noise) -> Tensor:
        """The inner purifier's."""
        return self.inner.levels(norm, noise)

    def steps(self, levels: Tensor, nets: Networks) -> Tensor:
        """The inner purifier's."""
        return self.inner.steps(levels, nets)


@dataclass(frozen=True)
class Identity(Purifier):
    """No purification: the undefended classifier."""

    depth = 0
    measure = None

    def check(self, nets: Networks, shape: Shape) -> None:
        """Nothing can be wrong."""

    def seen(self, x: Tensor) -> Tensor:
        """Itself."""
        return x

    def levels(self, norm: Tensor, noise: Noise) -> Tensor:
        """No stages."""
        return norm.new_zeros(0, len(norm))

    def steps(self, levels: Tensor, nets: Networks) -> Tensor:
        """None."""
        return torch.zeros(levels.shape[1], dtype=torch.int64)

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        """The image itself."""
        return Purified(x, levels.t, torch.zeros(len(x), dtype=torch.int64))


def replaced(purifier: P, kind: type[object], change: Callable[[Any], object]) -> P:
    """The same purifier with every part of one kind mapped, inner purifiers' too.

    SSNI maps levels, a surrogate grids.

    Raises:
        ConfigError: if the purifier has no such part.
    """
    changed: P = _replaced(purifier, kind, change)
    if changed is purifier:
        raise ConfigError(f"{type(purifier).__name__} has no {kind.__name__} to replace")
    return changed


def _replaced(value: Any, kind: type[object], change: Callable[[Any], object]) -> Any:
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, tuple):
        parts = tuple(_replaced(v, kind, change) for v in value)
        return parts if any(a is not b for a, b in zip(parts, value, strict=True)) else value
    if not isinstance(value, Purifier):
        return value
    own = {f.name: getattr(value, f.name) for f in fields(value)}  # type: ignore[arg-type]
    new = {name: _replaced(v, kind, change) for name, v in own.items()}
    moved = {name: v for name, v in new.items() if v is not own[name]}
    return replace(value, **moved) if moved else value  # type: ignore[type-var]


def batch_dependent(value: object) -> bool:
    """Whether some part of a purifier makes a row's result depend on its batch mates.

    Only `Linear(batch=True)` does, the released rule of SSNI-L.
    """
    if isinstance(value, Linear):
        return value.batch
    if isinstance(value, tuple):
        return any(map(batch_dependent, value))
    if not is_dataclass(value):
        return False
    return any(batch_dependent(getattr(value, field.name)) for field in fields(value))


def fits(nets: Networks, shape: Shape) -> None:
    """Raise `ConfigError` if the diffusion model takes other images than `shape`."""
    if shape is not None and shape != tuple(nets.denoiser.shape):
        raise ConfigError(
            f"the diffusion model takes images of {nets.denoiser.shape} (C, H, W), not {shape}, "
            "which the classifier takes; wrap the purifier in adpur.Resized"
        )


def score_norms(purifier: Purifier, x: Tensor, noise: Noise, context: Context) -> list[Tensor]:
    """Score norms fp64 `(B,)` of [0, 1] images and the measured calls `(B,)` they cost.

    NaN and 0 if the purifier needs none; differentiable in `x`.
    """
    if (measure := purifier.measure) is None:
        none = x.new_full((len(x),), torch.nan, dtype=torch.float64)
        return [none, torch.zeros(len(x), dtype=torch.int64)]
    before, scorer = calls_made(), context.nets.scorer
    seen = to_signed(purifier.seen(x))
    (norm,) = in_calls(
        lambda i: [measure(seen[i], scorer, noise[i], context.memory)], len(x), context.rows
    )
    calls = (calls_made() - before) // -(-len(x) // context.rows)
    return [norm, torch.full((len(x),), calls)]
