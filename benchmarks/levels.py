"""What t(x) costs: EPS against its bare calls, and its share of an attack iteration.

python benchmarks/levels.py [--pairs 15] [--out FILE]
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from timing import ROWS, Line, Setting, forward, pair, ratio, report, timed

from adpur import Defense, Exact, Oracle, ScoreNorm, ssni_n

IMAGES, EOT = 64, 10


def lines(setting: Setting) -> Iterator[Line]:
    """Five levels and the paper's twenty."""
    for levels in (5, 20):
        yield norm(setting, levels)
    for levels in (5, 20):
        yield share(setting, levels)


def norm(setting: Setting, levels: int) -> Line:
    """EPS of R images against as many bare calls."""
    (x, _, noise), measure = setting.first(ROWS), ScoreNorm(20, levels)
    t, signed = torch.full((ROWS,), 10), 2 * x - 1

    def ours() -> None:
        with torch.no_grad():
            measure(signed, setting.nets.scorer, noise)

    def bare() -> None:
        for _ in range(levels):
            forward(setting.nets.denoiser, signed, t)

    return pair(f"EPS of {levels} levels / {levels} F", "<= 1.10", ours, bare, setting.pairs)


def share(setting: Setting, levels: int) -> Line:
    """EPS of the images against the whole iteration that measures it once."""
    purifier = ssni_n("digits/diffusion", 100, 20, tau=1, relative=True, levels=levels)
    defense, (x, y, noise) = Defense(purifier, setting.nets, IMAGES), setting.first(IMAGES)
    oracle = Oracle(defense, Exact().view(purifier), y, noise)
    works = {
        "levels": lambda: defense.levels(x, noise),
        "iteration": lambda: oracle.value_and_grad(x, 0, EOT),
    }
    found = timed(works, setting.few, warm=1)
    what = f"EPS of {levels} levels / one iteration of SSNI-N (5 steps, EOT {EOT}, {IMAGES} images)"
    return Line(what, ratio(found["levels"], found["iteration"]))


if __name__ == "__main__":
    report([lines], __doc__)
