"""What the attacker knows of the defence's randomness."""

from dataclasses import dataclass, field, replace

import torch

from adpur.errors import ConfigError
from adpur.keyed.noise import ALL, Noise, Source, Stream


@dataclass(frozen=True)
class Knowledge:
    """Which noise the attack shares with the evaluation.

    | pool | streams | the field calls it | by name |
    |---|---|---|---|
    | None | any | white-box: fresh noise in the attack and in the evaluation | `white_box` |
    | 1 | all | deterministic white-box (ADDT DW-both) | `dw_both` |
    | 1 | all | randomness replay (RevPure): the same value | `replay` |
    | 1 | (forward,) | ADDT DW-fwd | `dw_forward` |
    | K | all | ADDT DW-semi-K: one of K known draws | `dw_semi` |

    Args:
        pool: how many draws per image there are in all; None is fresh noise always.
        streams: which streams come from the pool.
        seeds: how many such pools there are, each attacked and evaluated on its own. One pool of
            one draw has an interval over images only; more say what another draw would have done.
        seed: which of them this is, where one is meant.
    """

    pool: int | None = None
    streams: frozenset[Stream] = field(default=ALL)
    seeds: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        try:  # YAML has lists of names
            named = (Stream[s.upper()] if isinstance(s, str) else Stream(s) for s in self.streams)
            object.__setattr__(self, "streams", frozenset(named))
        except (KeyError, ValueError) as error:
            valid = ", ".join(s.name.lower() for s in ALL)
            raise ConfigError(f"Knowledge streams: no stream {error}; there is: {valid}") from None
        if self.pool is not None and self.pool < 1:
            raise ConfigError(f"Knowledge pool must be None or a positive integer, got {self.pool}")
        if self.seeds < 1 or self.seed < 0:
            raise ConfigError(
                f"Knowledge seeds must be >= 1 and seed >= 0, got {self.seeds} and {self.seed}"
            )
        if self.seeds > 1 and self.pool is None:
            raise ConfigError("Knowledge seeds are of a pool; without one all noise is fresh")

    def each(self) -> "list[Knowledge]":
        """The pools one at a time."""
        return [replace(self, seeds=1, seed=self.seed + k) for k in range(self.seeds)]

    @property
    def name(self) -> str:
        """What the field calls it; else its pool and streams.

        >>> Knowledge(1).name, Knowledge(8).name, Knowledge(1, ["level", "forward"]).name
        ('DW-both', 'DW-semi-8', 'pool of 1: forward, level')
        """
        if self.pool is None or not self.streams:
            return "white-box"
        if self.streams >= ALL:
            return "DW-both" if self.pool == 1 else f"DW-semi-{self.pool}"
        if self.pool == 1 and self.streams == {Stream.FORWARD}:
            return "DW-forward"
        return f"pool of {self.pool}: {', '.join(s.name.lower() for s in sorted(self.streams))}"

    def attack(self, noise: Noise, iteration: int, copies: int, votes: int = 1) -> Noise:
        """Keys of the EOT copies of one iteration, copy-major.

        Where all noise is known, a pool is walked through, at most once an iteration: more copies
        would only be repeats. Where any is, it is known of each of the defence's `votes`, and a
        copy is made of every one.
        """
        known = self.pool is not None and self.streams >= ALL
        copies = min(copies, self.pool or copies) if known else copies
        keys = noise.fold(source=Source.ATTACK, iteration=iteration).repeat(copies)
        keys = self._known(keys, iteration * copies)
        return keys.tiled("vote", votes) if self.pool is not None and votes > 1 else keys

    def select(self, noise: Noise, draws: int, iteration: int = 0) -> Noise:
        """Keys on which an attack compares its own candidates; never the evaluation's.

        No more of a wholly known pool than it has.
        """
        draws = min(draws, self.draws(draws))
        noise = noise.fold(source=Source.SELECT, iteration=iteration)
        return self._known(noise.repeat(draws), iteration * draws)

    def evaluate(self, noise: Noise, draws: int) -> Noise:
        """Keys of the evaluation draws, draw-major; the same for every attack and for clean."""
        return self._known(noise.fold(source=Source.EVALUATE).repeat(self.draws(draws)))

    def draws(self, draws: int) -> int:
        """How many evaluation draws an image has: all members where the pool covers everything."""
        return self.pool if self.pool is not None and self.streams >= ALL else draws

    def _known(self, noise: Noise, offset: int = 0) -> Noise:
        if self.pool is None:
            return noise
        draw = torch.as_tensor(noise.draw)
        member = (draw + offset) % self.pool + self.seed * self.pool
        return noise.fold(pooled=self.streams, member=member)


def white_box() -> Knowledge:
    """Fresh noise in the attack and in the evaluation: the attacker knows its law alone."""
    return Knowledge()


def dw_forward(seeds: int = 1) -> Knowledge:
    """The noise that diffuses is known, all other is fresh (ADDT section 4.2)."""
    return Knowledge(1, frozenset({Stream.FORWARD}), seeds)


def dw_both(seeds: int = 1) -> Knowledge:
    """All noise is known, one draw an image (ADDT section 4.2): a deterministic defence."""
    return Knowledge(1, seeds=seeds)


def dw_semi(k: int = 128, seeds: int = 1) -> Knowledge:
    """The evaluation draws one of `k` known draws of all noise (ADDT appendix B).

    Attack with `eot` = k to follow the paper, which averages over all of them at every step.
    """
    return Knowledge(k, seeds=seeds)


def replay(seeds: int = 1) -> Knowledge:
    """Randomness replay (RevPure Algorithm 1): the evaluation has the noise the attack met.

    The same value as `dw_both`: two papers' names for one threat model.
    """
    return Knowledge(1, seeds=seeds)
