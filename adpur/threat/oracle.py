"""What an attack may ask of a defence."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from adpur.defense import Defense
from adpur.errors import AttackError
from adpur.noise import Noise, Source, Stream
from adpur.purify.base import Levels, Purifier
from adpur.threat.knowledge import Knowledge


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
        watch: read-only observer `watch(iteration, loss (B,))`.
    """

    defense: Defense
    view: Purifier
    y: Tensor
    noise: Noise
    knowledge: Knowledge = field(default_factory=Knowledge)
    loss: Loss = CrossEntropy()
    sign: int = 1
    watch: Callable[[int, Tensor], None] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "noise", self.noise.fold(source=Source.ATTACK))

    def per_draw(self, x: Tensor, iteration: int, eot: int = 1) -> tuple[Tensor, Tensor]:
        """Losses `(E, B)` and gradients `(E, B, C, H, W)` of the EOT copies at `x`.

        E is `eot`, or the size of a smaller known pool.
        """
        keys = self.knowledge.attack(self.noise, iteration, eot)
        eot = len(keys.index) // len(x)
        levels = self._levels(x, keys, eot)
        value, grad = self.defense.loss_and_grad(
            x.repeat(eot, 1, 1, 1), keys, levels, self._objective(eot), self.view
        )
        finite = torch.isfinite(grad.flatten(1)).all(1)
        if not finite.all():
            rows = sorted(set(keys.index[~finite].tolist()))
            raise AttackError(
                f"the gradient at attack iteration {iteration} is not finite for dataset rows "
                f"{rows[:8]}: look for 0/0, log 0 or an overflow in the classifier or its inputs"
            )
        return value.view(eot, -1), grad.view(eot, *x.shape)

    def value_and_grad(self, x: Tensor, iteration: int, eot: int = 1) -> tuple[Tensor, Tensor]:
        """Mean loss `(B,)` and mean gradient over the copies (EOT; Athalye et al. 2018)."""
        value, grad = self.per_draw(x, iteration, eot)
        if self.watch is not None:
            self.watch(iteration, _mean(value))
        return _mean(value), _mean(grad)

    @torch.no_grad()
    def value(self, x: Tensor, draws: int, iteration: int = 0) -> Tensor:
        """Mean loss `(B,)` of the deployed purifier over selection draws, new ones an iteration."""
        keys = self.knowledge.select(self.noise, draws, iteration)
        logits = self.defense(x.repeat(draws, 1, 1, 1), keys).logits
        rows = torch.arange(len(logits), device=x.device)
        return _mean(self._objective(draws)(logits, rows).view(draws, -1))

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
        """One level draw per image and iteration, never one per copy (SSNI Algorithm 2, line 3).

        Where the level's noise is known, each copy has the level of its own pool member.
        """
        if Stream.LEVEL in keys.pooled:
            return self.defense.levels(x.repeat(eot, 1, 1, 1), keys)
        return self.defense.levels(x, keys[: len(x)]).repeat(eot)

    def _objective(self, copies: int) -> Callable[[Tensor, Tensor], Tensor]:
        y = self.y.repeat(copies)
        return lambda logits, rows: self.sign * self.loss.loss(logits, y[rows.to(y.device)])


def _mean(draws: Tensor) -> Tensor:
    """Mean over the first dimension, added in a fixed order: no bit depends on B."""
    return reduce(torch.add, draws.unbind()) / len(draws)
