"""What the trunk costs above its networks: interleaved pairs in one run, on the shipped digits.

Each line is a ratio of two things timed alternately, its median over the pairs and a 95 %
bootstrap interval of that median, in CPU time (`time.process_time`) of one thread. Aims are
those of the README; nothing here is asserted in a test.

    python benchmarks/trunk.py [--pairs 15]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import dataclasses
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from adpur import (
    Ancestral,
    Checkpointed,
    Constant,
    Defense,
    Diffusion,
    Digits,
    Exact,
    GradientMode,
    Noise,
    Stream,
    Strided,
    pretrained,
)
from adpur.level import Level, NoiseLevel

ROWS = 128
STEPS = 5
Pair = tuple[Callable[[], object], Callable[[], object]]


@dataclasses.dataclass(frozen=True)
class Mixed(NoiseLevel):
    """Levels spread evenly over 0, 20, ..., 100."""

    configured = 0.0

    def check(self, nets: object) -> None:
        """Fits any."""

    def level(self, x: Tensor, scorer: object, noise: Noise) -> Level:
        """By dataset row."""
        t = 20.0 * (noise.index * 7 % 6).double()
        return Level(t, torch.full_like(t, torch.nan))


def main() -> None:
    """Time every pair and print its line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    count = parser.parse_args().pairs
    torch.set_num_threads(1)
    nets = pretrained("digits/classifier", "digits/diffusion")
    x, y, index = Digits().stacked("train")
    print(f"{ROWS} rows, {STEPS} steps, one thread, {count} interleaved pairs, CPU time")
    gradient = {mode: gradient_pair(nets, x, y, index, mode) for mode in (Exact(), Checkpointed())}
    report("exact gradient, kept / G per step", gradient[Exact()], count, "<= 1.10")
    report(
        "exact gradient, checkpointed / (F + G) per step",
        gradient[Checkpointed()],
        count,
        "<= 1.10",
    )
    for chunks, rows in ((8, 128), (16, 64)):
        name = f"mixed t(x), {chunks}R rows (R = {rows}) / ceil(sum steps / R) F"
        report(name, mixed_pair(nets, x, index, chunks, rows), count, "<= 1.10")
    report("noise of a step / F", noise_pair(nets, x, index), count, "<= 0.03")


def gradient_pair(nets, x, y, index, mode: GradientMode) -> Pair:
    """The attack's gradient of R rows against bare network calls that the same steps need."""
    defense = Defense(Diffusion(Constant(100), Strided(20), Ancestral()), nets, ROWS)
    view = mode.view(defense.purifier)
    x, y, noise = x[:ROWS], y[:ROWS], Noise(index[:ROWS])
    levels = defense.levels(x, noise)
    t = torch.full((ROWS,), 50)

    def ours() -> None:
        loss = lambda logits, rows: F.cross_entropy(logits, y[rows], reduction="none")  # noqa: E731
        defense.loss_and_grad(x, noise, levels, loss, view)

    def bare() -> None:
        for _ in range(STEPS):
            if mode == Checkpointed():
                with torch.no_grad():
                    nets.denoiser(x, t)
            part = x.clone().requires_grad_()
            torch.autograd.grad(nets.denoiser(part, t).sum(), part)
        part = x.clone().requires_grad_()
        torch.autograd.grad(nets.classifier(part).sum(), part)

    return ours, bare


def mixed_pair(nets, x, index, chunks: int, rows: int) -> Pair:
    """Purifying many images at levels of 0 to 5 steps against the calls their steps fill."""
    defense = Defense(Diffusion(Mixed(), Strided(20), Ancestral()), nets, rows)
    x, noise = x[: chunks * rows], Noise(index[: chunks * rows])
    levels = defense.levels(x, noise)
    calls = -(-int(defense.purifier.steps(levels, nets).sum()) // rows)
    t = torch.full((rows,), 50)

    def ours() -> None:
        with torch.no_grad():
            defense(x, noise, levels)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(calls):
                nets.denoiser(x[:rows], t)
            for _ in range(chunks):
                nets.classifier(x[:rows])

    return ours, bare


def noise_pair(nets, x, index) -> Pair:
    """The noise of R rows and all steps, drawn as the reverse loop draws it, against its calls."""
    noise, t = Noise(index[:ROWS]), torch.full((ROWS,), 50)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(STEPS):
                nets.denoiser(x[:ROWS], t)

    return lambda: noise.ahead(x[:ROWS], Stream.REVERSE, 1, STEPS), bare


def report(name: str, pair: Pair, count: int, aim: str) -> None:
    """Alternate the two, twice unmeasured, then print the median ratio and its interval."""
    ratios = [_cpu(pair[0]) / _cpu(pair[1]) for _ in range(count + 2)][2:]
    interval = stats.bootstrap(
        (ratios,), np.median, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    print(
        f"{name:60} {np.median(ratios):.3f} [{interval.low:.3f}, {interval.high:.3f}]  aim {aim}",
        flush=True,
    )


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
