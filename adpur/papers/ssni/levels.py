"""What images are at one t*."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adpur.diffusion.reverse import Seen
from adpur.judging.judge import judge
from adpur.judging.trial import Examples, Trial
from adpur.papers.subject import Subject
from adpur.papers.sweeps import with_purifier
from adpur.purify.base import replaced
from adpur.purify.levels.level import Constant, NoiseLevel
from adpur.threat.knowledge import Knowledge
from adpur.types import to_unit


class AtLevel(NamedTuple):
    """All images at one t*: which draws are right `(B, N)`, mean margins, one draw's images."""

    t: float
    draws: NDArray[np.float64]
    margin: NDArray[np.float64]
    diffused: Tensor
    purified: Tensor

    @property
    def share(self) -> NDArray[np.float64]:
        """Of right draws `(B,)`."""
        return self.draws.mean(axis=1)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether most draws are."""
        return np.asarray(self.share > 0.5)


def at_level(subject: Subject, images: Examples, known: Knowledge, t: float) -> AtLevel:
    """Judge images as they are with every noise level of the row at t*."""
    subject.tell(f"{subject.row}: t* {t:g}")
    fixed = replaced(subject.defense.purifier, NoiseLevel, lambda _: Constant(t))
    one, (x, _, noise) = with_purifier(subject, fixed), images
    verdict = judge(one.defense, images, one.draws, Trial(one.defense, knowledge=known))
    starts = dict[int, Tensor]()

    def tap(seen: Seen) -> None:
        for row, x_t in zip(seen.row.tolist(), seen.x, strict=True):
            starts.setdefault(row, to_unit(x_t))

    with torch.no_grad():
        one.defense(x, known.evaluate(noise, 1)[slice(len(x))], tap=tap)
    diffused = torch.stack([starts.get(i, x[i]) for i in range(len(x))])
    margin = np.array([s.margin for s in verdict.scores]).mean(axis=1)
    draws = verdict.correct.double().numpy()
    return AtLevel(t, draws, margin, diffused.cpu(), verdict.purified.cpu())


def own_levels(subject: Subject, images: Examples, known: Knowledge) -> list[float]:
    """The t(x) of each image on its first draw; NaN where the row computes none."""
    if subject.defense.purifier.measure is None:
        return [float("nan")] * len(images.x)
    keys = known.evaluate(images.noise, 1)[slice(len(images.x))]
    t: list[float] = subject.defense.levels(images.x, keys).t[0].tolist()
    return t
