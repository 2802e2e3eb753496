"""RevPure's sequence length t* and subsequence length s*: accuracy over both, under replay."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from adpur.diffusion.grid import Grid, Subsequence
from adpur.errors import ConfigError
from adpur.judging.trial import Trial
from adpur.papers.analysis import Analysis, Answer
from adpur.papers.subject import Subject
from adpur.papers.sweeps import At, around, having, over, with_purifier
from adpur.purify.base import replaced
from adpur.purify.diffusion import Diffusion
from adpur.purify.levels.level import Constant
from adpur.threat.knowledge import replay

AROUND = (0.2, 0.6, 1.0, 1.4, 2.0)


@dataclass(frozen=True)
class LengthAccuracy(Analysis):
    """RevPure Fig. 2a and Table S1: accuracy over the sequence length t*, clean and attacked.

    Of rows of a constant t*, in the unit of their schedules; rounds all get the same. On a strided
    grid a longer t* takes more steps. Clean images and the attack both under replay, as there: one
    known draw an image, so the intervals are over images alone. Every t* costs the block's whole
    attack.

    Args:
        ts: a point each, reachable by the rows' grids; by default 0.2, 0.6, 1, 1.4 and 2 times
            each row's own, at the nearest reachable.
        replay: the attack knows the noise it is judged by; else as the blocks say.
        blocks: attack blocks of the config; by default the first of each row.
        eps: radius; by default the largest of each block.
    """

    ts: tuple[float, ...] = ()
    replay: bool = True
    blocks: tuple[str, ...] = ()
    eps: float | None = None

    def __post_init__(self) -> None:
        if any(t < 0 for t in self.ts):
            raise ConfigError(f"expected ts >= 0, got {list(self.ts)}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A curve a row."""
        points = (
            At(subject.row, t, replayed(_long(subject, t), self.replay))
            for subject in having(having(subjects, Diffusion), Constant)
            for t in self.ts or around(subject, AROUND)
        )
        return over("t*", points, self.blocks, self.eps)


@dataclass(frozen=True)
class SubsequenceAccuracy(Analysis):
    """RevPure Fig. 2b and Table S2: accuracy over the subsequence length s*, clean and attacked.

    The row's own t* in s* nearly equal steps (`Subsequence`), whatever its grid was; of rows on
    the integer steps of DDPM. An s* above t* is t*. Clean images and the attack both under replay,
    as there. Every s* costs the block's whole attack in as many network calls.

    Each step here spans what the left out ones did, so that all reach 0. Table S2 (s* = 5: DDIM
    clean 95.2 and robust 0, as at t* = 1 in Table S1) reads as if those kept were one-step long;
    the paper does not say.

    Args:
        counts: s*, a point each.
        replay: the attack knows the noise it is judged by; else as the blocks say.
        blocks: attack blocks of the config; by default the first of each row.
        eps: radius; by default the largest of each block.
    """

    counts: tuple[int, ...] = (5, 10, 20, 50, 75)
    replay: bool = True
    blocks: tuple[str, ...] = ()
    eps: float | None = None

    def __post_init__(self) -> None:
        if not self.counts or min(self.counts) < 1:
            raise ConfigError(f"expected counts >= 1, got {list(self.counts)}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A curve a row."""
        points = (
            At(subject.row, count, replayed(_sparse(subject, count), self.replay))
            for subject in having(subjects, Grid)
            for count in self.counts
        )
        return over("s*", points, self.blocks, self.eps, log=True)


def replayed(subject: Subject, known: bool = True) -> Subject:
    """The row with every block's attacker knowing all noise, if he is to (RevPure Algorithm 1)."""
    if not known:
        return subject
    if subject.blocks:  # refuse noise that nobody can know
        subject.knowing(Trial(subject.defense), replay())
    blocks = (replace(block, knowledge=replay()) for block in subject.blocks)
    return replace(subject, blocks=tuple(blocks))


def _long(subject: Subject, t: float) -> Subject:
    return with_purifier(
        subject, replaced(subject.defense.purifier, Constant, lambda _: Constant(t))
    )


def _sparse(subject: Subject, count: int) -> Subject:
    grid = Subsequence(count)
    return with_purifier(subject, replaced(subject.defense.purifier, Grid, lambda _: grid))
