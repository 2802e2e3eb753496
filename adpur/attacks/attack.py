"""What an attack is, and the targets it may aim at."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Self

from torch import Tensor

from adpur.attacks.choice import MEMBERS
from adpur.errors import ConfigError
from adpur.threat.ball import Threat
from adpur.threat.oracle import Oracle


class Attack(ABC):
    """A search for an adversarial image; what it returns is projected and judged by others.

    Leaves are frozen dataclasses with at least `eps` and `norm`, what may be done to an image.
    """

    eps: float
    norm: Threat
    climbs: ClassVar[bool] = True
    """Whether it asks for gradients; an attack made of others does where one of them does."""

    @abstractmethod
    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        """An adversarial image for every clean one in `x` `(B, C, H, W)`; none is skipped."""

    def at(self, eps: float, norm: Threat | None = None) -> Self:
        """The same attack at another radius and, where one is given, of another threat."""
        threat = norm if norm is not None else self.norm
        return replace(self, eps=eps, norm=threat)  # type: ignore[type-var]


class Target(ABC):
    """A rule for the class a targeted attack aims at."""

    @abstractmethod
    def labels(self, oracle: Oracle, x: Tensor) -> Tensor:
        """Targets `(B,)`, never the true label."""


@dataclass(frozen=True)
class NextClass(Target):
    """The true label plus `offset`, modulo the number of classes."""

    offset: int = 1

    def labels(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        classes = oracle.logits(x).shape[1]
        if self.offset % classes == 0:
            raise ConfigError(
                f"NextClass offset {self.offset} aims at the true label ({classes} classes)"
            )
        return (oracle.y + self.offset) % classes


@dataclass(frozen=True)
class LeastLikely(Target):
    """The class the defence finds least likely on one selection draw."""

    def labels(self, oracle: Oracle, x: Tensor) -> Tensor:
        """See the class."""
        logits = oracle.logits(x)
        logits = logits.scatter(1, oracle.y.view(-1, 1), float("inf"))
        return logits.argmin(1)


def check_budget(attack: Attack, *counts: str) -> None:
    """Reject a budget no attack can have; eps 0 is the null attack and is fine."""
    name, step_size = type(attack).__name__, getattr(attack, "step_size", None)
    if not attack.eps >= 0:
        raise ConfigError(f"{name} eps must be >= 0 (0 is the null attack), got {attack.eps}")
    if step_size is not None and not step_size > 0:
        raise ConfigError(f"{name} step_size must be positive, got {step_size}")
    for count in counts:
        if getattr(attack, count) < 1:
            raise ConfigError(f"{name} {count} must be >= 1, got {getattr(attack, count)}")


def check_draws(attack: Attack, iterations: int) -> None:
    """Reject more iterations than selection keys can tell from those between attacks."""
    if iterations > MEMBERS:
        raise ConfigError(
            f"{type(attack).__name__} would draw {iterations} times, more than the {MEMBERS} that "
            "a noise key can number; lower its budget"
        )


def changed(attack: Attack, **rules: Callable[[Any], Any]) -> Attack:
    """The attack with some of its settings changed, in its members too; None stays None.

    >>> from adpur import PGD
    >>> changed(PGD(steps=10), steps=lambda n: 2 * n, draws=lambda n: 2 * n).steps
    20
    """
    new: Attack = _changed(attack, rules)
    return new


def differentiates(attack: Any) -> bool:
    """Whether an attack, or one that it is made of, asks for gradients.

    >>> from adpur import PGD, Square
    >>> differentiates(PGD()), differentiates(Square())
    (True, False)
    """
    held = [getattr(attack, f.name) for f in fields(attack)] if is_dataclass(attack) else []
    parts = [p for v in held for p in (v if isinstance(v, list | tuple) else [v])]
    members = [p for p in parts if isinstance(p, Attack)]
    return any(map(differentiates, members)) if members else attack.climbs


def _changed(value: Any, rules: dict[str, Callable[[Any], Any]]) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_changed(v, rules) for v in value)
    if not isinstance(value, Attack) or not is_dataclass(value):
        return value
    now = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
    new = {
        name: rules[name](v) if name in rules and v is not None else _changed(v, rules)
        for name, v in now.items()
    }
    return replace(value, **new)
