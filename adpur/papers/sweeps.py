"""Accuracy over a setting: a curve whose every point is a defence of its own, attacked anew."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple, TypeVar

import torch

from adpur.defense.defense import Defense
from adpur.errors import ConfigError
from adpur.judging.judge import judge
from adpur.judging.scoreboard import CLEAN, Outcome
from adpur.judging.statistics import mean_accuracy
from adpur.judging.trial import Trial
from adpur.papers.analysis import Answer
from adpur.papers.charts.lines import Plot, panels
from adpur.papers.subject import Subject
from adpur.purify.base import Purifier
from adpur.purify.diffusion import Diffusion
from adpur.purify.levels.level import NoiseLevel
from adpur.report.draw.plots import Series
from adpur.threat.trace import Trace

HEADING = (
    "images", "draws", "percent right", "low", "high", "mean t", "network calls", "attack queries",
)  # fmt: skip
"""What is told of every point beside its place.

Low and high are the 95 % interval, clustered by image; t(x) and network calls are those of a
prediction, queries the rows an attack had differentiated or evaluated for an image.
"""
P = TypeVar("P")


class At(NamedTuple):
    """A point of a sweep: the curve it belongs to, its place on the axis, and the row there."""

    curve: str
    value: float
    subject: Subject


class Judged(NamedTuple):
    """A point as it was measured, clean or under the attack of one block."""

    curve: str
    value: float
    attack: str
    eps: float
    outcome: Outcome

    @property
    def clean(self) -> bool:
        """Whether no attack was made."""
        return self.attack.startswith(CLEAN)


def parts(purifier: Any, kind: type[P]) -> list[P]:
    """What `replaced` would map: every part of one kind, inner purifiers' too."""
    if isinstance(purifier, kind):
        return [purifier]
    if isinstance(purifier, tuple):
        return [part for one in purifier for part in parts(one, kind)]
    own = fields(purifier) if isinstance(purifier, Purifier) else ()  # type: ignore[arg-type]
    return [part for f in own for part in parts(getattr(purifier, f.name), kind)]


def having(subjects: Sequence[Subject], kind: type) -> list[Subject]:
    """The rows whose purifier has a part of one kind."""
    found = [s for s in subjects if parts(s.defense.purifier, kind)]
    if not found:
        told = ", ".join(s.row for s in subjects)
        raise ConfigError(f"expected a row whose purifier has a {kind.__name__}, got {told}")
    return found


def around(subject: Subject, shares: Sequence[float]) -> list[float]:
    """Times at shares of a diffusing row's own t*, each the nearest its grid reaches."""
    purifier = subject.defense.purifier
    base = parts(purifier, NoiseLevel)[0].configured  # type: ignore[type-abstract]
    one = parts(purifier, Diffusion)[0]
    end = (one.schedule or subject.defense.networks.denoiser.schedule).end
    wanted = torch.tensor([base * share for share in shares], dtype=torch.float64)
    return sorted(set(one.grid.snap(wanted.clamp(max=end), end).tolist()))


def with_purifier(subject: Subject, purifier: Purifier) -> Subject:
    """The row with another purifier; its own blocks attack that, those of a source still theirs."""
    old = subject.defense
    new = Defense(purifier, old.networks, old.rows, old.workers, old.ensemble)
    random = subject.draws.random or new.random(subject.images.x)
    for block in subject.blocks:
        if block.attacked(subject.row) == subject.row:
            block.check(subject.row, new)
    return replace(subject, defense=new, draws=subject.draws._replace(random=random))


def over(
    axis: str, points: Iterable[At], blocks: Sequence[str] | None = (), eps: float | None = None,
    log: bool = False,
) -> Answer:  # fmt: skip
    """Clean and robust accuracy over a setting, a panel each; every point costs a full attack.

    Args:
        axis: what the setting is called.
        points: in the order of their curves.
        blocks: attack blocks of the config, a curve each; by default the first of each row,
            None is all of them.
        eps: radius; by default the largest of each block.
        log: of the axis.
    """
    found = [judged for at in points for judged in measured(at, blocks, eps)]
    plots = [
        Plot(axis, told, _series(part), log)
        for told, part in (
            ("clean, percent right", [j for j in found if j.clean]),
            ("robust, percent right", [j for j in found if not j.clean]),
        )
    ]
    return Answer(
        ("row", "attack", "eps", axis, *HEADING), [_line(j) for j in found], panels(plots)
    )


def measured(
    at: At, blocks: Sequence[str] | None = (), eps: float | None = None
) -> Iterator[Judged]:
    """Clean images under each block's noise, and what its attack leaves of them."""
    subject, seen = at.subject, set()
    names = blocks if blocks is not None else [block.name for block in subject.blocks]
    for block in [subject.block(name) for name in names or (None,)]:
        trial = subject.trial(block.name, eps)
        radius = trial.attack.eps

        def tell(text: str, told: str = f"{at.curve} {at.value:g} {block.name}") -> None:
            subject.tell(f"{told}: {text}")

        if (quiet := block.clean(subject.row).attack) not in seen:
            seen.add(quiet)
            unattacked = Trial(subject.defense, knowledge=trial.knowledge)
            clean = judge(subject.defense, subject.images, subject.draws, unattacked)
            yield Judged(at.curve, at.value, quiet, 0.0, Outcome.of(clean.scores))
        trace = Trace(len(subject.images.x), tell)
        verdict = judge(subject.defense, subject.images, subject.draws, trial, trace)
        yield Judged(at.curve, at.value, block.name, radius, Outcome.of(verdict.scores))


def _line(judged: Judged) -> tuple[str | int | float, ...]:
    outcome, estimate = judged.outcome, mean_accuracy(judged.outcome.correct)
    images, draws = outcome.predictions.shape
    t = float(outcome.t.mean()) if outcome.t.size else float("nan")
    percent = (100 * v for v in estimate)
    place = (judged.curve, judged.attack, judged.eps, judged.value)
    return (*place, images, draws, *percent, t, float(outcome.nfe.mean()), outcome.compute)


def _series(found: Sequence[Judged]) -> list[Series]:
    """A curve for each name; the attack is named where there are several."""
    several, curves = len({j.attack for j in found}) > 1, dict[str, list[Judged]]()
    for judged in found:
        name = f"{judged.curve}, {judged.attack}" if several else judged.curve
        curves.setdefault(name, []).append(judged)
    made = []
    for name, mine in curves.items():
        at = [mean_accuracy(j.outcome.correct) for j in mine]
        y, low, high = ([100 * v for v in part] for part in zip(*at, strict=True))
        made.append(Series(name, [j.value for j in mine], y, low, high))
    return made
