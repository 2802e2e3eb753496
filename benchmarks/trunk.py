"""What the trunk costs above its networks, on the shipped digits.

F is a bare forward, G a forward and its backward to the input, H a forward, its differentiable
input gradient and that gradient's backward: what an inner gradient needs that is differentiated.

    python benchmarks/trunk.py [--pairs 15] [--out FILE]
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from timing import ROWS, STEPS, Line, Setting, forward, gradient, pair, report, second
from torch import Tensor

from adpur import (
    SSIM,
    Checkpointed,
    Defense,
    Diffusion,
    Exact,
    GradientMode,
    Noise,
    Purifier,
    Stream,
    Strided,
    ddpm,
    edm,
    gdmp,
    scoreopt_n,
    scoreopt_o,
)
from adpur.keyed.rows import calls_made
from adpur.purify.levels.level import NoiseLevel

AIM = "<= 1.10"


@dataclasses.dataclass(frozen=True)
class Mixed(NoiseLevel):
    """Levels spread evenly over 0, 20, ..., 100, by dataset row."""

    configured = 0.0
    measure = None

    def check(self, nets: object) -> None:
        """Fits any."""

    def level(self, norm: Tensor, noise: Noise) -> Tensor:
        """See the class."""
        return 20.0 * (noise.index * 7 % (STEPS + 1)).double()


def lines(setting: Setting) -> Iterator[Line]:
    """Gradients, inner gradients, mixed levels, noise."""
    name, diffpure = f"DiffPure, {STEPS} steps", ddpm(20 * STEPS, 20)
    yield graded(setting, f"{name}, kept / G per step", diffpure, "G" * STEPS)
    yield graded(
        setting, f"{name}, checkpointed / (F + G) per step", diffpure, "FG" * STEPS, Checkpointed()
    )
    yield graded(setting, "EDM-ODE, 5 Heun steps, kept / G per call", edm(count=5), "G" * 9)
    yield graded(
        setting, "ScoreOpt-O, 5 steps, kept / H per step", scoreopt_o(steps=STEPS), "H" * STEPS
    )
    yield graded(
        setting,
        "ScoreOpt-N, 5 steps, kept / (H per step + G)",
        scoreopt_n(steps=STEPS),
        "H" * STEPS + "G",
    )
    ssim = gdmp(60, 1, 20, SSIM(width=0.5))
    yield graded(setting, "GDMP-SSIM, 3 steps, kept / (G + H of SSIM) per step", ssim, "GS" * 3)
    yield graded(setting, "GDMP-SSIM, 3 steps, kept / G per step", ssim, "GGG")
    yield mixed(setting, 8, ROWS)
    yield mixed(setting, 16, ROWS // 2)
    yield noise(setting)


def graded(
    setting: Setting, what: str, purifier: Purifier, calls: str, mode: GradientMode = Exact()
) -> Line:
    """The attack's gradient of R rows against the bare calls it needs, the classifier's G too."""
    defense, (x, y, noise) = Defense(purifier, setting.nets, ROWS), setting.first(ROWS)
    view, levels = mode.view(purifier), defense.levels(x, noise)
    t, denoiser = torch.full((ROWS,), 50), setting.nets.denoiser
    kinds = {
        "F": partial(forward, denoiser, x, t),
        "G": partial(gradient, denoiser, x, t),
        "H": partial(second, denoiser, x, t),
        "S": partial(bare_ssim, x),
    }

    def ours() -> None:
        defense.loss_and_grad(x, noise, levels, loss, view)

    def loss(logits: Tensor, rows: Tensor) -> Tensor:
        return F.cross_entropy(logits, y[rows], reduction="none")

    def bare() -> None:
        for kind in calls:
            kinds[kind]()
        gradient(setting.nets.classifier, x)

    return pair(what, AIM, ours, bare, setting.pairs)


def bare_ssim(x: Tensor) -> None:
    """SSIM of a pair of images, its gradient, and the backward of that."""
    from adpur.diffusion.guidance import ssim

    x = x.clone().requires_grad_()
    likeness = ssim(x, x.detach().flip(0), sigma=0.5, reduction="none", data_range=2.0)
    (grad,) = torch.autograd.grad(likeness.sum(), x, create_graph=True)
    torch.autograd.grad(grad, x, x.detach())


def mixed(setting: Setting, chunks: int, rows: int) -> Line:
    """Purifying many images at levels of 0 to 5 steps against the calls their steps fill."""
    defense = Defense(Diffusion(Mixed(), Strided(20)), setting.nets, rows)
    x, _, noise = setting.first(chunks * rows)
    levels = defense.levels(x, noise)
    ideal = -(-int(defense.purifier.steps(levels.t, setting.nets).sum()) // rows)
    t, part = torch.full((rows,), 50), x[:rows]

    def ours() -> None:
        with torch.no_grad():
            defense(x, noise, levels)

    def bare() -> None:
        for _ in range(ideal):
            forward(setting.nets.denoiser, part, t)
        for _ in range(chunks):
            forward(setting.nets.classifier, part)

    before = calls_made()
    ours()
    made = calls_made() - before
    what = f"mixed t(x), {chunks} R images, R = {rows}: {made} calls / F of the ideal {ideal}"
    return pair(what, AIM, ours, bare, setting.pairs)


def noise(setting: Setting) -> Line:
    """The noise of R rows and all steps, drawn as the reverse loop draws it, against its calls."""
    x, _, keys = setting.first(ROWS)
    row = torch.arange(ROWS).expand(STEPS, -1)
    step = torch.arange(STEPS, 0, -1).view(-1, 1).expand_as(row)

    def bare() -> None:
        for _ in range(STEPS):
            forward(setting.nets.denoiser, x, torch.full((ROWS,), 50))

    def ours() -> None:
        keys.ahead(x, Stream.REVERSE, row, step)

    return pair("noise of a step / F", "<= 0.03", ours, bare, setting.pairs, digits=4)


if __name__ == "__main__":
    report([lines], __doc__)
