"""What an attack may ask of a defence."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from adpur.defense import Defense
from adpur.errors import AttackError, ConfigError
from adpur.gradient import StraightThrough
from adpur.noise import Noise, Source, Stream
from adpur.purify.base import Levels, Purifier
from adpur.threat.blame import blame
from adpur.threat.knowledge import Knowledge
from adpur.types import expand, ordered_mean


class Loss(ABC):
    """What an attack raises."""

    @abstractmethod
    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Per-row losses `(B,)` from logits `(B, classes)` and labels `(B,)`."""


@dataclass(frozen=True)
class CrossEntropy(Loss):
    """-log softmax_y."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy of each row."""
        return F.cross_entropy(logits, y, reduction="none")


@dataclass(frozen=True)
class Margin(Loss):
    """max_{i != y} z_i - z_y: positive where the row is misclassified (Carlini & Wagner 2017)."""

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """The margin of each row."""
        own = F.one_hot(y, logits.shape[1]).bool()
        return logits.masked_fill(own, -torch.inf).amax(1) - logits.masked_fill(~own, 0).sum(1)


@dataclass(frozen=True)
class LevelGradient:
    """How an attack treats a computed t(x), whose score norm it could lower.

    By default as a constant (SSNI Algorithms 2 and 3). Measured once an image and iteration, so
    the extra cost is one forward and backward of the score norm.

    Args:
        through: differentiate t(x) too: exact on continuous grids (`Even`, `Karras`); where a grid
            rounds, the rounding has the identity's gradient.
        evade: lambda of the norm-evasion loss, loss - lambda ||EPS(x)||: look clean, be purified
            less.
    """

    through: bool = False
    evade: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.evade < float("inf"):
            raise ConfigError(f"LevelGradient evade must be >= 0, got {self.evade}")

    def check(self, view: Purifier) -> None:
        """Raise `ConfigError` where it would change nothing, and be reported all the same."""
        if (self.through or self.evade) and view.measure is None:
            raise ConfigError("LevelGradient is for rows whose t(x) comes from a score norm")
        if self.through and isinstance(view, StraightThrough):
            raise ConfigError("BPDA has no gradient through t(x); use Exact, or evade alone")


@dataclass(frozen=True)
class Oracle:
    """A defence as the attacker sees it: losses and gradients under the noise it may know.

    EOT copies are rows like any others, so one call of an attack costs whole chunks of R.

    Args:
        defense: the deployed defence.
        view: the purifier the attacker differentiates (`GradientMode.view`).
        y: labels `(B,)`; targets if `sign` is -1.
        noise: one key per image; whatever its source, the oracle makes it the attack's, so that no
            attack holds a key of the evaluation.
        knowledge: which of the evaluation's noise the attacker has.
        loss: what it raises (or lowers, if targeted).
        levels: how t(x) is differentiated.
        watch: read-only observer `watch(iteration, loss (B,))`.
    """

    defense: Defense
    view: Purifier
    y: Tensor
    noise: Noise
    knowledge: Knowledge = field(default_factory=Knowledge)
    loss: Loss = CrossEntropy()
    sign: int = 1
    levels: LevelGradient = LevelGradient()
    watch: Callable[[int, Tensor], None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", self.noise.fold(source=Source.ATTACK))

    def per_draw(self, x: Tensor, iteration: int, eot: int = 1) -> tuple[Tensor, Tensor]:
        """Losses `(E, B)` and gradients `(E, B, C, H, W)` of the EOT copies at `x`.

        E is `eot`, or the size of a smaller known pool times the defence's votes.
        """
        votes = self.defense.ensemble.votes
        keys = self.knowledge.attack(self.noise, iteration, eot, votes)
        eot = len(keys.index) // len(x)
        copies = x.repeat(eot, 1, 1, 1)
        known = self._levels(x, keys, eot)
        loss, through = self._objective(eot), self.levels.through
        value, grad, slope = self.defense.loss_and_grad(
            copies, keys, known, loss, self.view, through
        )
        if (through or self.levels.evade) and self.view.measure is not None:
            value, grad = self._with_norm(x, keys, known, value, grad, slope)
        finite = torch.isfinite(grad.flatten(1)).all(1)
        if not bool(finite.all() & grad.any()):  # the one look at the device
            bad = finite.logical_not() if not finite.all() else finite
            if place := self._blamed(copies, keys, known, loss, bad):
                raise AttackError(f"the gradient at attack iteration {iteration} {place}")
        return value.view(eot, -1), grad.view(eot, *x.shape)

    def value_and_grad(self, x: Tensor, iteration: int, eot: int = 1) -> tuple[Tensor, Tensor]:
        """Mean loss `(B,)` and mean gradient over the copies (EOT; Athalye et al. 2018)."""
        value, grad = self.per_draw(x, iteration, eot)
        if self.watch is not None:
            self.watch(iteration, ordered_mean(value))
        return ordered_mean(value), ordered_mean(grad)

    @torch.no_grad()
    def value(self, x: Tensor, draws: int, iteration: int = 0) -> Tensor:
        """Mean loss `(B,)` of the deployed purifier over selection draws, new ones an iteration."""
        keys = self.knowledge.select(self.noise, draws, iteration)
        logits = self.defense(x.repeat(draws, 1, 1, 1), keys).logits
        rows = torch.arange(len(logits), device=x.device)
        return ordered_mean(self._objective(draws)(logits, rows).view(draws, -1))

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """Logits on the first selection draw, for choosing targets."""
        return self.defense(x, self.knowledge.select(self.noise, 1)).logits

    def restarted(self, restart: int) -> "Oracle":
        """The same oracle with the noise of another restart."""
        return replace(self, noise=self.noise.fold(restart=restart))

    def towards(self, targets: Tensor) -> "Oracle":
        """The oracle of a targeted attack: its loss is minus the loss at `targets`."""
        return replace(self, y=targets, sign=-1)

    def _levels(self, x: Tensor, keys: Noise, eot: int) -> Levels:
        """One score norm per image and iteration, never one per copy (SSNI Algorithm 2, line 3).

        Where its noise is known, each copy has the norm of its own pool member. Jitter is drawn
        for each copy.
        """
        if Stream.LEVEL in keys.pooled and self.view.measure is not None:
            return self.defense.levels(x.repeat(eot, 1, 1, 1), keys, self.view)
        once = self.defense.levels(x, keys[: len(x)], self.view)
        norm, nfe = once.score_norm.repeat(eot), once.nfe.repeat(eot)
        return self.defense.leveled(norm, nfe, keys, self.view)

    def _with_norm(
        self, x: Tensor, keys: Noise, known: Levels, value: Tensor, grad: Tensor, slope: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Add what the loss owes to the score norm, through t(x) and by evasion."""
        eot = len(keys.index) // len(x)
        if Stream.LEVEL in keys.pooled:
            norm_grad = self.defense.norm_grad(x.repeat(eot, 1, 1, 1), keys, self.view)
        else:
            norm_grad = self.defense.norm_grad(x, keys[: len(x)], self.view).repeat(eot, 1, 1, 1)
        weight = expand(slope - self.levels.evade, norm_grad)
        norm = known.score_norm.to(value.dtype).to(value.device)
        return value - self.levels.evade * norm, grad + weight * norm_grad

    def _blamed(
        self, x: Tensor, keys: Noise, known: Levels,
        loss: Callable[[Tensor, Tensor], Tensor], bad: Tensor,
    ) -> str:  # fmt: skip
        """Which rows have no usable gradient and where it was lost, from a second run of one.

        Empty where nothing is wrong: a loss that is flat at its logits has a zero gradient.
        """
        rows = bad.nonzero().flatten()
        one = rows[:1]
        place = blame(
            self.defense, self.view, x[one], keys[one], known.at(one.cpu()),
            lambda logits: loss(logits, one.cpu()),
        )  # fmt: skip
        told = sorted(set(keys.index[rows].tolist()))[:8]
        return place and f"{place}; dataset rows {told}"

    def _objective(self, copies: int) -> Callable[[Tensor, Tensor], Tensor]:
        y = self.y.repeat(copies)
        return lambda logits, rows: self.sign * self.loss.loss(logits, y[rows.to(y.device)])


def gradient_cosine(oracle: Oracle, x: Tensor, eot: int) -> Tensor:
    """Cosine `(B,)` of an oracle's mean gradient to the deployed purifier's, on the same keys.

    What a surrogate, a substitute or BPDA is worth; NaN where either is zero.
    """
    own = replace(oracle, watch=None)
    exact = replace(own, view=oracle.defense.purifier)
    one, other = (o.value_and_grad(x, 0, eot)[1].flatten(1) for o in (own, exact))
    return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))
