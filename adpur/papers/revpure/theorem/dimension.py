"""RevPure's Theorem 1 over the dimension: what becomes of attacks on a noisy classifier."""

from collections.abc import Callable, Sequence

import numpy as np

from adpur.papers.analysis import Answer, Cell
from adpur.papers.charts.bounds import Bounded, bounds
from adpur.papers.revpure.theorem.replay import NoisyBall, NoisyHalfSpace, Setting

MEASURED = (2, 4, 8, 16, 32, 64, 128, 256)
CURVES: dict[str, Callable[[int], Setting]] = {
    "one copy": lambda n: NoisyBall(n),
    "EOT 10": lambda n: NoisyBall(n, copies=10),
    "replay": lambda n: NoisyBall(n, pool=1),
    "replay within eps": lambda n: NoisyBall(n, pool=1, eps=6.0),
    "half-space, one copy": lambda n: NoisyHalfSpace(n),
}
"""What is measured at each n, by what the figure calls it."""


def over_dimension(trials: int, at: Sequence[int] = MEASURED) -> Answer:
    """Success of each attack: measured at some n, and in closed form at those between.

    RevPure Theorem 1 and Corollaries 1.1 and 2.1, whose cdfs its Fig. S1 c sketches. EOT is of 10
    copies and its bound that of infinitely many. Bounded replay falls with n like the rest, and a
    half-space, which the theorem leaves out, breaks its bound.
    """
    between = sorted({round(n) for n in np.geomspace(min(at), max(at), 60).tolist()} | set(at))
    rows: list[tuple[Cell, ...]] = []
    drawn = []
    for name, made in CURVES.items():
        found = {n: made(n).check(trials).measured for n in at}
        exact, printed = [made(n).exact for n in between], [made(n).printed for n in between]
        for n, *known in zip(between, exact, printed, strict=True):
            rows.append((name, n, *found.get(n, ("", "", "")), *known))
        drawn.append(Bounded(name, at, list(found.values()), between, exact, printed))
    heading = ("setting", "n", "measured", "low", "high", "exact", "printed")
    return Answer(heading, rows, bounds(drawn, "success of the attack"))
