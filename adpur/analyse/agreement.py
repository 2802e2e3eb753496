"""What an approximate gradient is worth beside the exact one: for one step (ScoreOpt's question).

`python -m adpur.analyse.agreement -c CONFIG` asks it of every attack block of a test config, each a
gradient mode, on each row, and prints a table; `--csv FILE` writes it too.
"""

import csv
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.errors import ConfigError
from adpur.gradient import Exact
from adpur.judge import Bench, Search, judge, unattacked
from adpur.lit.callbacks.robustness import Robustness
from adpur.lit.data.base import ImageData
from adpur.lit.evaluation import Evaluation
from adpur.noise import Noise
from adpur.stages import parse
from adpur.stages.defaults import quiet
from adpur.threat.compare import both_gradients, cosine
from adpur.threat.onestep import OneStep
from adpur.trial import Block, Trial


class Images(NamedTuple):
    """What the question is asked of: images `(B, C, H, W)`, labels `(B,)` and their keys."""

    x: Tensor
    y: Tensor
    noise: Noise


class Agreement(NamedTuple):
    """One gradient mode on one row.

    Args:
        row, block, gradient, norm, eps, images: what was asked.
        cosine: to the exact gradient at the clean images, mean over images.
        signs: share of pixels whose sign is that of the exact gradient.
        success: of the draws that are right on clean images, the share that one step makes wrong.
        exact: the same by the exact gradient, under the same keys.
    """

    row: str
    block: str
    gradient: str
    norm: str
    eps: float
    images: int
    cosine: float
    signs: float
    success: float
    exact: float


def agreement(block: Block, eps: float, images: Images, bench: Bench, copies: int) -> Agreement:
    """Ask one block: gradients are means over `copies` draws, the same for both modes."""
    gradient, norm = block.trial.gradient, block.trial.attack.norm
    step = replace(block.trial, attack=OneStep(eps, norm, copies), random=bench.random, cosine=0)
    oracle = step.oracle(images.y, images.noise, step.knowledge.each()[0])
    one, other = both_gradients(oracle, images.x, copies)
    clean, found = (_right(step, images, bench, search) for search in (unattacked, step.search))
    best = replace(step, gradient=Exact()).search
    exact = found if gradient.exact else _right(step, images, bench, best)
    return Agreement(
        block.row, block.name, type(gradient).__name__, type(norm).__name__, eps, len(images.x),
        float(cosine(one, other).nanmean()),
        float((one.sign() == other.sign()).double().mean()),
        _lost(clean, found), _lost(clean, exact),
    )  # fmt: skip


def _right(step: Trial, images: Images, bench: Bench, search: Search) -> Tensor:
    """Whether each draw of each image is classified right `(B, N)`."""
    norm, eps = step.attack.norm, step.attack.eps
    verdict = judge(step.defense, *images, bench, search, step.knowledge, norm, eps)
    return torch.tensor([[p == s.label for p in s.predictions] for s in verdict.scores])


def _lost(before: Tensor, after: Tensor) -> float:
    """Of the draws that were right, the share that is not; NaN where none was."""
    return float((before & ~after).sum() / before.sum())


def agreements(config: str, limit: int, copies: int) -> Iterator[Agreement]:
    """Every block of a config on each of its rows, at its largest radius."""
    quiet()
    cli = parse("test", ["-c", config, "--trainer.logger=false"])
    module, data = cli.model, cli.datamodule
    if not isinstance(module, Evaluation) or not isinstance(data, ImageData):
        raise ConfigError(f"{config} is not a test config: adpur configs lists those")
    blocks = [c for c in cli.trainer.callbacks if isinstance(c, Robustness)]  # type: ignore[attr-defined]
    for callback in blocks:
        callback.setup(cli.trainer, module, "test")
    images = _images(data, limit, module.seed)
    for block in module.attacks.values():
        bench = module.bench(block.row, images.x)
        yield agreement(block, max(block.radii), images, bench, copies)


def _images(data: ImageData, limit: int, seed: int) -> Images:
    split = data.split(data.evaluate)
    x, y, index = zip(*(split[i] for i in data.subset[:limit]), strict=True)
    return Images(torch.stack(x), torch.stack(y), Noise(torch.stack(index), seed))


HEADER = """\
| row | block | gradient | norm, eps | cosine | equal signs | success | exact success |
|---|---|---|---|---|---|---|---|"""


def line(found: Agreement) -> str:
    """A line of the markdown table; shares in per cent."""
    shares = (f"{100 * share:.2f}" for share in (found.signs, found.success, found.exact))
    threat = f"{found.norm} {found.eps:.4g}"
    told = (found.row, found.block, found.gradient, threat, f"{found.cosine:.3f}", *shares)
    return f"| {' | '.join(told)} |"


def write(found: Sequence[Agreement], file: Path) -> None:
    """The table as CSV."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(Agreement._fields)
        writer.writerows(found)


def main(argv: Sequence[str] | None = None) -> None:
    """Ask a config, print the table, write the CSV."""
    parser = ArgumentParser("python -m adpur.analyse.agreement", description=__doc__)
    parser.add_argument("-c", "--config", required=True, help="a test config with attack blocks")
    parser.add_argument("--images", type=int, default=64, help="the first of the config's images")
    parser.add_argument("--copies", type=int, default=10, help="draws averaged in a gradient")
    parser.add_argument("--csv", type=Path, help="file to write the table to")
    args = parser.parse_args(argv)
    print(HEADER)
    found = []
    for one in agreements(args.config, args.images, args.copies):
        print(line(one), flush=True)
        found.append(one)
    if args.csv:
        write(found, args.csv)


if __name__ == "__main__":
    main()
