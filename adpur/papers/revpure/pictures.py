"""What the reverse process looks like."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.judging.trial import Examples
from adpur.keyed.rows import in_calls
from adpur.papers.analysis import Analysis, Answer, Cell, purifying
from adpur.papers.charts.strips import Strip, strips
from adpur.papers.paths import walk
from adpur.papers.revpure.geometry import known
from adpur.papers.subject import Subject
from adpur.types import to_unit


@dataclass(frozen=True)
class PurificationStrips(Analysis):
    """RevPure Fig. S2: the reverse process in pictures: clean, attacked, x_t, purified.

    A strip an image and row. Pictures are clamped to [0, 1] as they are drawn; over each is t and
    what the row's classifier calls it as it stands, without purifying it. The table has the same
    8-bit pixels, in hexadecimal, channel by channel.

    Args:
        block: attack block of the config; by default the first of each row.
        replay: the attack knows the noise of the walk; else as in the block, and the walk is that
            of the evaluation's first draw.
        shown: how many images, the first.
        states: how many x_t, evenly chosen from t* down.
    """

    block: str | None = None
    replay: bool = True
    shown: int = 2
    states: int = 5

    def __post_init__(self) -> None:
        if self.shown < 1 or self.states < 1:
            raise ConfigError(f"expected shown, states >= 1, got {self.shown}, {self.states}")

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """Rows one after the other, each with the same images."""
        rows: list[tuple[Cell, ...]] = []
        drawn = []
        for subject in purifying(subjects):
            few = replace(subject, images=subject.images.first(self.shown))
            states = self._states(few)
            called = torch.stack([_called(few, x) for _, _, x in states])
            for k, index in enumerate(few.images.noise.index.tolist()):
                pictures = torch.stack([x[k] for _, _, x in states])
                names = called[:, k].tolist()
                captions = [
                    f"{name if name != 'x_t' else f't = {t:g}'}: {c}"
                    for (name, t, _), c in zip(states, names, strict=True)
                ]
                drawn.append(Strip(f"{subject.row}\n{index}", pictures, captions))
                label = int(few.images.y[k])
                for (name, t, x), c in zip(states, names, strict=True):
                    rows.append((subject.row, index, label, name, t, c, hexadecimal(x[k])))
        heading = ("row", "image", "label", "picture", "t", "called", "pixels")
        return Answer(heading, rows, strips(drawn))

    def _states(self, subject: Subject) -> list[tuple[str, float, Tensor]]:
        """Name, t and images in [0, 1] of each column."""
        images, trial = subject.images, known(subject, self.block, self.replay)
        found = subject.attacked(trial)
        keys = trial.knowledge.evaluate(images.noise, 1)[slice(len(found))]
        path = walk(subject.defense, found, keys, lambda x, row: to_unit(x))
        chosen = np.unique(np.linspace(0, len(path.t) - 2, self.states).round().astype(int))
        times = path.t.median(dim=1).values
        return [
            ("clean", 0.0, images.x.cpu()),
            ("attacked", 0.0, found.cpu()),
            *(("x_t", float(times[k]), path.kept[k]) for k in chosen.tolist()),
            ("purified", 0.0, path.kept[-1]),
        ]


def _called(subject: Subject, x: Tensor) -> Tensor:
    """The class of images as they stand, clamped as they are drawn."""
    images: Examples = subject.images
    with torch.no_grad():
        shown = x.clamp(0, 1).to(images.x.device)
        (logits,) = in_calls(
            lambda i: [subject.defense.networks.classify(shown[i], images.noise[i])],
            len(shown), subject.defense.rows,
        )  # fmt: skip
        return logits.argmax(1).cpu()


def hexadecimal(image: Tensor) -> str:
    """An image `(C, H, W)` as drawn: 8 bits a value, in hexadecimal.

    >>> hexadecimal(torch.tensor([[[0.0, 1.0], [2.0, 0.5]]]))
    '00ffff80'
    """
    return bytes((image.double().clamp(0, 1) * 255).round().byte().flatten().tolist()).hex()
