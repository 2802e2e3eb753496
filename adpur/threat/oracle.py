"""What an attack may ask of a defence."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.defense.defense import Defense
from adpur.defense.gradient import StraightThrough
from adpur.errors import AttackError, ConfigError
from adpur.keyed.noise import Noise, Source, Stream
from adpur.purify.base import Levels, Purifier, batch_dependent
from adpur.threat.knowledge import Knowledge
from adpur.threat.losses import CrossEntropy, Loss, Margin
from adpur.threat.lost_gradient import blame
from adpur.threat.trace import Trace
from adpur.types import expand, ordered_mean


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
        if self.through and batch_dependent(view):
            raise ConfigError(
                "LevelGradient through differentiates t(x) of each image alone, and Linear batch "
                "makes it depend on the others; write batch: false"
            )


class Look(NamedTuple):
    """What E copies say at B images: losses `(E, B)`, gradients `(E, B, C, H, W)`, and logits
    `(E, B, classes)` of the purifier that was differentiated.
    """

    loss: Tensor
    grad: Tensor
    logits: Tensor


@dataclass(frozen=True)
class Oracle:
    """A defence as the attacker sees it: losses and gradients under the noise it may know.

    EOT copies are rows like any others, so one call of an attack costs whole chunks of R. What is
    asked for is a mean over draws; `per_draw` and `answers` serve attacks that are to be shown
    wrong, and those that combine draws in their own way.

    Args:
        defense: the deployed defence.
        view: the purifier the attacker differentiates (`GradientMode.view`).
        y: true labels `(B,)`.
        noise: one key per image; whatever its source, the oracle makes it the attack's, so that no
            attack holds a key of the evaluation.
        knowledge: which of the evaluation's noise the attacker has.
        loss: what it raises.
        target: classes `(B,)` a targeted attack aims at.
        levels: how t(x) is differentiated.
        deviation: how much of the walk's deviation is added to the loss (`DiffAttack`); none of it,
            and no walk is needed, where None.
        random: whether anything differs between draws; if not, one copy is all there is.
        trace: read-only observer of every query.
        rows: which rows of the trace's batch these are; all by default.
    """

    defense: Defense
    view: Purifier
    y: Tensor
    noise: Noise
    knowledge: Knowledge = field(default_factory=Knowledge)
    loss: Loss = CrossEntropy()
    target: Tensor | None = None
    levels: LevelGradient = LevelGradient()
    deviation: float | None = None
    random: bool = True
    trace: Trace | None = None
    rows: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", self.noise.fold(source=Source.ATTACK))

    def per_draw(self, x: Tensor, iteration: int, eot: int = 1) -> Look:
        """Each of the E copies at `x`: E is `eot`, or a smaller known pool times the votes."""
        keys = self._keys(iteration, eot)
        eot = len(keys.index) // len(x)
        copies = x.repeat(eot, 1, 1, 1)
        known = self._levels(x, keys, eot)
        loss, through = self._objective(eot), self.levels.through
        value, grad, slope, logits = self.defense.loss_and_grad(
            copies, keys, known, loss, self.view, through, self.deviation
        )
        if (through or self.levels.evade) and self.view.measure is not None:
            value, grad = self._with_norm(x, keys, known, value, grad, slope)
        finite = torch.isfinite(grad.flatten(1)).all(1)
        if not bool(finite.all() & grad.any()):  # the one look at the device
            bad = finite.logical_not() if not finite.all() else finite
            if place := self._blamed(copies, keys, known, loss, bad):
                raise AttackError(f"the gradient at attack iteration {iteration} {place}")
        look = Look(value.view(eot, -1), grad.view(eot, *x.shape), logits.view(eot, len(x), -1))
        if self.trace is not None:
            self.trace.gradient(self.place, x, look.loss, look.grad)
        return look

    def value_and_grad(self, x: Tensor, iteration: int, eot: int = 1) -> tuple[Tensor, Tensor]:
        """Mean loss `(B,)` and mean gradient over the copies (EOT; Athalye et al. 2018)."""
        look = self.per_draw(x, iteration, eot)
        return ordered_mean(look.loss), ordered_mean(look.grad)

    def straight(self) -> "Oracle":
        """The same, with the identity for the purifier's backward pass: a copy costs a prediction
        and the classifier's gradient, which is what `per_draw` then holds.
        """
        return replace(self, view=StraightThrough(self.view))

    def grafted(self, x: Tensor, iteration: int, eot: int, draw: Tensor, seed: Tensor) -> Tensor:
        """Gradients `(B, C, H, W)` at `x` of <seed, purified image> of one copy of each image.

        `draw` `(B,)` numbers the copies that `per_draw` makes at the same iteration and `eot`.
        """
        keys = self._keys(iteration, eot)
        known = self._levels(x, keys, len(keys.index) // len(x))
        rows = draw * len(x) + torch.arange(len(x), device=draw.device)
        grad = self.defense.pulled_back(x, keys[rows], known.at(rows.cpu()), seed, self.view)
        if not torch.isfinite(grad).all():
            bad = (~torch.isfinite(grad).flatten(1).all(1)).cpu()
            told = sorted(set(self.noise.index.cpu()[bad].tolist()))[:8]
            raise AttackError(
                f"the purifier's gradient at attack iteration {iteration} is not finite; dataset "
                f"rows {told}"
            )
        return grad

    @torch.no_grad()
    def answers(self, x: Tensor, draws: int, iteration: int = 0) -> Tensor:
        """Logits `(draws, B, classes)` of the deployed defence on selection draws.

        The same iteration has the same draws whatever `x` is, so differences between two images
        are paired; another iteration has new ones.
        """
        keys = self.knowledge.select(self.noise, draws if self.random else 1, iteration)
        draws = len(keys.index) // len(x)
        logits = self.defense(x.repeat(draws, 1, 1, 1), keys).logits
        if self.trace is not None:
            self.trace.value(self.place, draws)
        return logits.view(draws, len(x), -1)

    def value(self, x: Tensor, draws: int, iteration: int = 0) -> Tensor:
        """Mean loss `(B,)` of the deployed defence over selection draws (see `answers`)."""
        logits = self.answers(x, draws, iteration)
        rows = torch.arange(logits[..., 0].numel(), device=x.device)
        loss = self._objective(len(logits))(logits.flatten(0, 1), rows)
        return ordered_mean(loss.view(len(logits), -1))

    def strength(self, x: Tensor, draws: int, iteration: int = 0) -> Tensor:
        """How well `x` fools the defence on selection draws `(B,)`, in one number to compare.

        The number of misclassified draws, and between equals the mean margin.
        """
        return fooled(self.answers(x, draws, iteration), self.y)

    def logits(self, x: Tensor) -> Tensor:
        """Logits `(B, classes)` on the first selection draw, for choosing targets."""
        return self.answers(x, 1)[0]

    @property
    def place(self) -> Tensor:
        """Which rows of the trace's batch these are, on the host."""
        return self.rows if self.rows is not None else torch.arange(len(self.y))

    def at(self, rows: Tensor) -> "Oracle":
        """The oracle of some of its images."""
        target = None if self.target is None else self.target[rows]
        return replace(
            self, y=self.y[rows], noise=self.noise[rows], target=target, rows=self.place[rows.cpu()]
        )

    def restarted(self, restart: int) -> "Oracle":
        """The same oracle with the noise of another restart."""
        return replace(self, noise=self.noise.fold(restart=restart))

    def towards(self, target: Tensor) -> "Oracle":
        """The oracle of a targeted attack."""
        return replace(self, target=target)

    def _keys(self, iteration: int, eot: int) -> Noise:
        votes = self.defense.ensemble.votes
        return self.knowledge.attack(self.noise, iteration, eot if self.random else 1, votes)

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
        target = None if self.target is None else self.target.repeat(copies)

        def objective(logits: Tensor, rows: Tensor) -> Tensor:
            rows = rows.to(y.device)
            return self.loss.loss(logits, y[rows], None if target is None else target[rows])

        return objective


def fooled(logits: Tensor, y: Tensor) -> Tensor:
    """Of logits `(draws, B, classes)`, wrong draws plus m / (2 + 2 |m|), m the mean margin."""
    draws, count = logits.shape[:2]
    margin = Margin().loss(logits.flatten(0, 1), y.repeat(draws)).view(draws, count).double()
    mean = ordered_mean(margin)
    wrong = (logits.argmax(2) != y).double().sum(0)
    return wrong + mean / (2 + 2 * mean.abs())
