"""Where attacks of different knowledge go, and what their images cost the defence."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from adpur.attacks.attack import changed
from adpur.attacks.pgd import PGD
from adpur.errors import ConfigError
from adpur.judging.statistics import Estimate
from adpur.judging.trial import Examples, Trial
from adpur.papers.subject import Subject, silent
from adpur.threat.knowledge import Knowledge, dw_both, white_box

AT_ONCE = 4096
"""Images evaluated in one call: a bound on memory, which changes no bit."""


class Setting(NamedTuple):
    """What an attacker knows, and how many draws he averages; `eot` None is what the block has."""

    name: str
    knowledge: Knowledge
    eot: int | None


DW_BOX = Setting("DW-box", dw_both(), 1)
WHITE_EOT = Setting("white-box (EOT)", white_box(), None)
WHITE = Setting("white-box", white_box(), 1)


def attacker(
    subject: Subject, block: str | None, knowledge: Knowledge, eot: int | None = None
) -> Trial:
    """A block's attack under other knowledge: one run from the clean image, its last iterate.

    ADDT's code starts there; a random start common to two attacks would be common to their
    directions too, and of several attacks in one the iterates would be no path.
    """
    trial = subject.own(block)
    if not isinstance(trial.attack, PGD):
        raise ConfigError(
            f"expected a block of adpur.PGD, whose iterates are one path, got "
            f"{type(trial.attack).__name__}; choose another with --block"
        )
    attack = changed(
        trial.attack, restarts=lambda n: 1, candidates=lambda n: 1, random_start=lambda b: False,
        eot=lambda n: eot if eot is not None else n,
    )  # fmt: skip
    return replace(subject.knowing(trial, knowledge), attack=attack)


def iterates(subject: Subject, trial: Trial) -> Tensor:
    """Every image at which the attack asked for a gradient, then its result `(K+1, B, C, H, W)`."""
    seen: list[Tensor] = []

    def watch(rows: Tensor, x: Tensor) -> None:
        seen.append(x.clone())

    last = subject.attacked(trial, watch)
    return torch.stack([*seen, last])


def losses(
    trial: Trial, images: Examples, x: Tensor, draws: int, tell: Callable[[str], None] = silent
) -> Tensor:
    """Cross-entropy `(P, B)` of the deployed defence at P versions `(P, B, C, H, W)` of B images.

    On the draws that the trial's knowledge names: all noise known, those of the pool, at most
    `draws`; else the mean over `draws` that no gradient has met, the same for every version.
    """
    found, size = [], max(1, AT_ONCE // (len(images.y) * draws))
    for part in torch.split(x, size):
        rows = torch.arange(len(images.y), device=x.device).repeat(len(part))
        oracle = trial.oracle(images.y[rows], images.noise[rows], trial.knowledge.each()[0])
        found.append(oracle.value(part.flatten(0, 1), draws).view(len(part), -1))
        tell(f"loss of {sum(map(len, found))} of {len(x)} points")
    return torch.cat(found).double().cpu()


def gradient(trial: Trial, images: Examples, copies: int) -> Tensor:
    """Mean gradient `(B, C, H, W)` over `copies` draws at the clean images."""
    oracle = trial.oracle(images.y, images.noise, trial.knowledge.each()[0])
    return oracle.value_and_grad(images.x, 0, copies)[1]


def average(values: Tensor, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """Mean over images, NaN left out, with Student's 95 % interval, cut to what values can be."""
    v: NDArray[np.float64] = values.double().cpu().numpy()
    v = v[np.isfinite(v)]
    if len(v) < 2:
        return Estimate(float(v.mean()) if len(v) else float("nan"), float("nan"), float("nan"))
    middle, arm = float(v.mean()), float(stats.sem(v) * stats.t.ppf(0.975, len(v) - 1))
    return Estimate(middle, max(middle - arm, least), min(middle + arm, most))
