"""Two rows of a run on the same images."""

import numpy as np

from adpur.errors import ConfigError
from adpur.judging.scoreboard import Outcome
from adpur.judging.statistics import mcnemar, paired_bootstrap, paired_difference
from adpur.report.markdown import label, markdown
from adpur.report.run import Run

NOTE = (
    "Points of accuracy, mean over draws, [95 % interval over images]: the primary comparison; a "
    "percentile bootstrap of images is beside it, too narrow where few images differ. "
    "worst-of-N and majority: images only the first row gets right, only the other, McNemar's "
    "exact p. Nothing is corrected for the number of comparisons."
)


def paired(run: Run, against: str) -> list[str]:
    """Markdown lines: each row minus `against`, on the same images and evaluation keys."""
    if against not in run.rows:
        raise ConfigError(f"{run.folder} has no row {against!r}; there is: {', '.join(run.rows)}")
    body = [["difference", "attack", "points", "bootstrap", "worst-of-N", "majority"]]
    for column, outcome in run.columns.items():
        other = run.columns.get(column._replace(row=against))
        if column.row != against and other is not None:
            body.append([f"{column.row} - {against}", label(column), *compare(outcome, other)])
    return [*markdown(body), "", NOTE]


def compare(first: Outcome, second: Outcome) -> list[str]:
    """The mean difference by Student's t and by bootstrap, then McNemar of worst and majority."""
    one, other = shared(first, second)
    tests = [mcnemar(one.verdicts[k], other.verdicts[k]) for k in ("worst_of_n", "majority")]
    means = [f(one.correct, other.correct) for f in (paired_difference, paired_bootstrap)]
    return [*map(str, means), *map(str, tests)]


def shared(first: Outcome, second: Outcome) -> tuple[Outcome, Outcome]:
    """Both, on the images they have in common."""
    common = set(np.intersect1d(first.images, second.images).tolist())
    one, other = (Outcome.of(s for s in o.scores if s.index in common) for o in (first, second))
    return one, other
