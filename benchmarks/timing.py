"""How the benchmarks measure: interleaved rounds of one thread's CPU time, medians, intervals."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from adpur import Digits, Networks, Noise, pretrained

ROWS, STEPS = 128, 5
Work = Callable[[], object]
Seconds = dict[str, np.ndarray]


class Setting(NamedTuple):
    """The shipped digits, their networks, and how many rounds a line gets."""

    nets: Networks
    x: Tensor
    y: Tensor
    index: Tensor
    pairs: int

    @property
    def few(self) -> int:
        """Rounds of a line whose works take seconds."""
        return max(2, self.pairs // 2)

    def first(self, count: int) -> tuple[Tensor, Tensor, Noise]:
        """Images, labels and keys of the first digits."""
        return self.x[:count], self.y[:count], Noise(self.index[:count])


class Line(NamedTuple):
    """One line of the table."""

    what: str
    found: str
    aim: str = ""

    def __str__(self) -> str:
        return f"| {self.what} | {self.found} | {self.aim} |"


Lines = Callable[[Setting], Iterable[Line]]
HEADER = (Line("what", "ratio, median [95 %]", "aim"), Line("---", "---", "---"))


def loaded(pairs: int) -> Setting:
    """One thread, the shipped networks, the training digits."""
    torch.set_num_threads(1)
    nets = pretrained("digits/classifier", "digits/diffusion")
    return Setting(nets, *Digits().stacked("train"), pairs)


def timed(works: dict[str, Work], rounds: int, warm: int = 2) -> Seconds:
    """CPU seconds of every work in every round; the order turns, the first rounds are dropped."""
    names, found = list(works), {name: [] for name in works}
    for k in range(rounds + warm):
        for name in names[k % len(names) :] + names[: k % len(names)]:
            found[name].append(cpu(works[name]))
    return {name: np.array(v[warm:]) for name, v in found.items()}


def cpu(work: Work) -> float:
    """CPU seconds of this process."""
    start = time.process_time()
    work()
    return time.process_time() - start


def ratio(ours: np.ndarray, other: np.ndarray, digits: int = 3) -> str:
    """Median of the rounds' ratios, with its 95 % bootstrap interval."""
    each = ours / other
    low, high = stats.bootstrap(
        (each,), np.median, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return f"{np.median(each):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def pair(what: str, aim: str, ours: Work, bare: Work, pairs: int, digits: int = 3) -> Line:
    """One work against another."""
    found = timed({"ours": ours, "bare": bare}, pairs)
    return Line(what, ratio(found["ours"], found["bare"], digits), aim)


def forward(net: torch.nn.Module, *inputs: Tensor) -> None:
    """F: a bare call."""
    with torch.no_grad():
        net(*inputs)


def gradient(net: torch.nn.Module, x: Tensor, *inputs: Tensor) -> None:
    """G: a bare call and its backward pass to the input."""
    x = x.clone().requires_grad_()
    torch.autograd.grad(net(x, *inputs).sum(), x)


def second(net: torch.nn.Module, x: Tensor, *inputs: Tensor) -> None:
    """H: a bare call, its differentiable input gradient, and that gradient's backward pass."""
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad((net(x, *inputs) ** 2).sum(), x, create_graph=True)
    torch.autograd.grad(grad, x, x.detach())


def report(sources: Iterable[Lines], description: str | None) -> None:
    """Measure, print and, with --out, write one table."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--pairs", type=int, default=15, help="rounds a line")
    parser.add_argument("--out", type=Path, help="write the table there too")
    args = parser.parse_args()
    setting, table = loaded(args.pairs), list[str]()
    print(f"{args.pairs} interleaved rounds, CPU time of one thread, {_load()}\n", flush=True)
    for source in (lambda _: HEADER, *sources):
        table.extend(_told(line) for line in source(setting))
    print(f"\n{_load()} at the end")
    if args.out is not None:
        args.out.write_text("\n".join(table) + "\n")


def _told(line: Line) -> str:
    print(line, flush=True)
    return str(line)


def _load() -> str:
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
