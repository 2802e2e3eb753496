"""What runs beside the model in a stage: the one place where that is decided."""

from collections.abc import Iterable, Sequence

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar

from adpur.lit.fit.checkpoint import LastCheckpoint
from adpur.lit.fit.cost import Cost
from adpur.lit.run.lost import Watch
from adpur.lit.test.progress import Progress


def beside(
    stage: str, given: Iterable[pl.Callback], bar: bool = True, keep: Sequence[pl.Callback] = ()
) -> list[pl.Callback]:
    """The callbacks of a stage, in the order in which they are told of anything.

    First the watch that ends a run which has lost a process; then those `given` by the config,
    attacks among them; a progress bar, a fit's checkpoint and its measured cost where the config
    has none of its own; last `keep`, which writes the config beside the results. The trust report
    is no callback: it is part of `Evaluation`, wherever that runs.
    """
    made = [Watch(), *given]
    added: list[tuple[type[pl.Callback], type[pl.Callback], bool]] = [
        (ProgressBar, Progress, bar),
        (LastCheckpoint, LastCheckpoint, stage == "fit"),
        (Cost, Cost, stage == "fit"),
    ]
    for kind, default, wanted in added:
        if wanted and not any(isinstance(callback, kind) for callback in made):
            made.append(default())
    return [*made, *keep]
