"""Attacks step by step, seen in two dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.manifold import TSNE
from torch import Tensor

from adpur.errors import ConfigError
from adpur.judging.trial import Trial
from adpur.papers.addt.directions import (
    DW_BOX,
    WHITE,
    WHITE_EOT,
    Setting,
    attacker,
    iterates,
    losses,
)
from adpur.papers.analysis import Analysis, Answer, Cell, purifying
from adpur.papers.charts.journeys import Journeys, journeys
from adpur.papers.charts.maps import Track
from adpur.papers.subject import Subject

SETTINGS = (DW_BOX, WHITE_EOT, WHITE)


@dataclass(frozen=True)
class Trajectories(Analysis):
    """ADDT Fig. 1: attack trajectories by what the attacker knows, embedded by t-SNE, and the loss.

    Of one image: the block's attack from the clean image, with all noise known (DW-box), by
    EOT and by one fresh draw a step. Each run of DW-box knows another draw of the noise; each
    other run has fresh noise. All iterates of a row share an embedding (scikit-learn's t-SNE,
    started at the principal components, fixed seed; the paper prints no settings). The loss is
    the cross-entropy of the deployed defence on what the setting evaluates: the known draw, or
    the mean over the config's N draws that no attack met; the paper does not say which.

    t-SNE keeps neighbours, not lengths or angles: read directions off `loss-landscape` instead.
    Costs 3 x runs attacks on one image, each call padded to R rows: `-- --model.rows=8` is cheaper.

    Args:
        runs: of each setting.
        image: which of the images.
        perplexity: of t-SNE, lowered where there are few points.
        block: attack block of the config; by default the first of each row.
    """

    runs: int = 5
    image: int = 0
    perplexity: float = 30.0
    block: str | None = None

    def __post_init__(self) -> None:
        if self.runs < 1 or self.image < 0 or not self.perplexity > 0:
            raise ConfigError(
                "expected runs >= 1, image >= 0 and perplexity > 0, got "
                f"{self.runs}, {self.image}, {self.perplexity}"
            )

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """A point an iterate."""
        rows: list[tuple[Cell, ...]] = []
        drawn = []
        for subject in purifying(subjects):
            tracks = self._tracks(self._only(subject))
            drawn.append(Journeys(subject.row, tracks))
            for k, track in enumerate(tracks):
                points = zip(track.x, track.y, track.z, strict=True)
                rows += [
                    (subject.row, track.name, k % self.runs, i, *p) for i, p in enumerate(points)
                ]
        heading = ("row", "knowledge", "run", "iteration", "x", "y", "loss")
        return Answer(heading, rows, journeys(drawn))

    def _only(self, subject: Subject) -> Subject:
        """The subject with one image."""
        images = subject.images
        if self.image >= (count := len(images.x)):
            raise ConfigError(f"expected image below --images {count}, got {self.image}")
        return replace(subject, images=images.rows(slice(self.image, self.image + 1)))

    def _tracks(self, subject: Subject) -> list[Track]:
        """All runs of the first setting, then of the next."""
        found = [self._run(subject, s, k) for s in SETTINGS for k in range(self.runs)]
        places = embedded([images for images, _ in found], self.perplexity)
        names = [s.name for s in SETTINGS for _ in range(self.runs)]
        return [
            Track(name, place[:, 0].tolist(), place[:, 1].tolist(), loss.tolist())
            for name, place, (_, loss) in zip(names, places, found, strict=True)
        ]

    def _run(self, subject: Subject, setting: Setting, run: int) -> tuple[Tensor, Tensor]:
        """Iterates `(K+1, D)` and their losses `(K+1,)`."""
        images = subject.images
        trial = nth(attacker(subject, self.block, setting.knowledge, setting.eot), run)
        restarted = images._replace(noise=images.noise.fold(restart=run))
        path = iterates(replace(subject, images=restarted), trial)
        subject.tell(f"{subject.row}: run {run + 1} of {self.runs}, {setting.name}")
        loss = losses(trial, images, path, subject.draws.evaluate)
        return path.flatten(1), loss[:, 0]


def nth(trial: Trial, run: int) -> Trial:
    """The trial of a run: where noise is known, of another draw of it."""
    known = trial.knowledge
    return replace(trial, knowledge=replace(known, seed=run)) if known.pool else trial


def embedded(paths: Sequence[Tensor], perplexity: float) -> list[NDArray[np.float64]]:
    """Places `(K+1, 2)` of the points `(K+1, D)` of several paths, in one embedding."""
    points = torch.cat(list(paths)).double().cpu().numpy()
    few = max(1.0, (len(points) - 1) / 3)
    tsne = TSNE(perplexity=min(perplexity, few), init="pca", random_state=0)
    places = tsne.fit_transform(points)
    return np.split(places.astype(np.float64), np.cumsum([len(p) for p in paths])[:-1])
