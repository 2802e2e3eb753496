"""RevPure's Theorem 1 and Corollary 2.1, measured on the code that evaluates real defences.

A classifier F behind additive Gaussian noise P (equation 4): an image is fooled when F is wrong
at x + eta. Lengths are in units of sigma. `python -m adpur.papers.revpure.theorem`
prints the table; `--out FOLDER` draws it over the dimension.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from adpur.lit.test.identity import of_versions
from adpur.papers.revpure.theorem.replay import NoisyBall, NoisyHalfSpace, Setting


def settings() -> list[Setting]:
    """What the paper states, what it says of growing n, and the two things it leaves unsaid."""
    known = [NoisyBall(pool=1), NoisyBall(pool=8, copies=8)]
    budget = [NoisyBall(n, pool=1, eps=6.0) for n in (16, 64, 256)]
    half = [NoisyHalfSpace(n, pool=pool) for pool in (None, 1) for n in (16, 64, 256)]
    fresh = [NoisyBall(n, copies=copies) for n in (4, 16, 64) for copies in (1, 2, 10, 100)]
    return [*fresh, *known, *budget, *half]


def table(trials: int = 2000) -> list[str]:
    """Markdown lines of `settings`, in per cent; about two seconds a setting."""
    lines = ["| setting | measured, 95 % | exact | RevPure |", "|---|---|---|---|"]
    for setting in settings():
        measured, exact, printed = setting.check(trials)
        lines.append(f"| {setting} | {measured} | {100 * exact:.2f} | {100 * printed:.3g} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; where a folder is given, draw success over the dimension into it too."""
    parser = ArgumentParser("python -m adpur.papers.revpure.theorem", description=__doc__)
    parser.add_argument("--trials", type=int, default=2000, help="attacks on each setting")
    parser.add_argument("--out", type=Path, help="folder for the figure; about a minute more")
    args = parser.parse_args(argv)
    print("\n".join(table(args.trials)))
    if args.out:
        from adpur.papers.analysis import write
        from adpur.papers.revpure.theorem.dimension import over_dimension

        about = {
            "command": ["python", "-m", "adpur.papers.revpure.theorem", *sys.argv[1:]]
        } | of_versions()
        for file in write(over_dimension(args.trials), args.out / "theorem-1", about):
            print(file)


if __name__ == "__main__":
    main()
