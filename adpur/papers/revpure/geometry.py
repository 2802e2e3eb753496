"""How RevPure explains purification: not closer to the clean image, but across the attack."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.judging.trial import Trial
from adpur.papers.analysis import Analysis, Answer, Cell, purifying
from adpur.papers.charts.descent import Descent, descents
from adpur.papers.paths import Path, walk
from adpur.papers.ssni.norms import banded, spread
from adpur.papers.subject import Subject
from adpur.threat.knowledge import replay
from adpur.types import to_signed

QUANTITIES = ("length", "cosine", "projection")


class Walked(NamedTuple):
    """Times `(K+1,)`; quantities `(3, B)` at the input and `(K+1, 3, n)` along n = N B draws."""

    t: Tensor
    before: Tensor
    along: Tensor


@dataclass(frozen=True)
class PathGeometry(Analysis):
    """RevPure Fig. 3: length, angle and projection of x_t - x_0 along the reverse process.

    x_0 is the clean image and the adversarial direction u = (x~_0 - x_0) / ||x~_0 - x_0||, all in
    [-1, 1]: ||x_t - x_0||, its cosine to u, and its inner product with u, a length. The caption
    takes the inner product with the whole perturbation, but Table S3 uses it as an L2 radius.
    Medians and quartiles over images (the paper does not say what its bands are); images that the
    attack leaves as they are have no direction and are left out. t is in the unit of the row's
    schedule: choose rows that share one; where rows set their own t(x), its median.

    Args:
        block: attack block of the config; by default the first of each row.
        replay: the attack knows the noise of the walk (RevPure Algorithm 1); else as in the block,
            and walks under each of the evaluation's draws.
    """

    block: str | None = None
    replay: bool = True

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A panel a quantity, a curve a row; hollow is the attacked image itself."""
        rows: list[tuple[Cell, ...]] = []
        drawn: dict[str, list[Descent]] = {name: [] for name in QUANTITIES}
        for subject in purifying(subjects):
            found = walked(subject, known(subject, self.block, self.replay))
            t = found.t.tolist()
            states = ["x_t"] * (len(t) - 1) + ["purified"]
            for k, name in enumerate(QUANTITIES):
                before, at = spread(found.before[k]), [spread(v[k]) for v in found.along]
                rows.append((subject.row, name, "input", 0.0, *before))
                rows += [
                    (subject.row, name, state, *v)
                    for state, *v in zip(states, t, *zip(*at, strict=True), strict=True)
                ]
                drawn[name].append(Descent(banded(subject.row, t, at), before.middle))
        heading = ("row", "quantity", "state", "t", "lower quartile", "median", "upper quartile")
        return Answer(heading, rows, descents(drawn, "input"))


def known(subject: Subject, block: str | None, replayed: bool) -> Trial:
    """A block's trial, under replay if it is to be."""
    trial = subject.trial(block)
    return subject.knowing(trial, replay()) if replayed else trial


def walked(subject: Subject, trial: Trial) -> Walked:
    """Attack, then walk under the keys the attack is judged by."""
    images, found = subject.images, subject.attacked(trial)
    moved = (found != images.x).flatten(1).any(1)
    if not moved.any():
        raise ConfigError(f"row {subject.row!r}: the attack moved no image")
    x, keys = found[moved], trial.knowledge.evaluate(images.noise[moved], subject.draws.evaluate)
    clean = to_signed(images.x[moved])
    direction = to_signed(x) - clean

    def look(state: Tensor, row: Tensor) -> Tensor:
        image = (row % len(x)).to(state.device)
        return measured(state - clean[image], direction[image])

    path = walk(subject.defense, x.repeat(len(keys.index) // len(x), 1, 1, 1), keys, look)
    return Walked(_times(path), measured(direction, direction).T.cpu(), path.kept.mT)


def measured(v: Tensor, direction: Tensor) -> Tensor:
    """Length, cosine and projection fp64 `(n, 3)` of vectors on directions `(n, C, H, W)`."""
    v, u = (w.double().flatten(1) for w in (v, direction))
    length, along = v.norm(dim=1), (v * u).sum(1) / u.norm(dim=1)
    return torch.stack((length, along / length, along), 1)


def _times(path: Path) -> Tensor:
    return path.t.median(dim=1).values
