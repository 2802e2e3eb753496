"""As printed, as released: how far each method's paper and its authors' code are apart.

Both forms of every pair run on one small U-Net in fp64 with the same keyed noise; its weights are a
function of their number, so that the table is the same on every machine. `python -m
adpur.papers.released` prints it, and docs/released.md holds what it prints.
"""

import math
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adpur.attacks.pgd import PGD
from adpur.defense.defense import Defense
from adpur.defense.gradient import BPDA
from adpur.diffusion.adapters import EpsDenoiser
from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.guidance import MSE, SSIM, Guidance, ReleasedMSE, ReleasedSSIM
from adpur.diffusion.schedule import DiscreteVP
from adpur.keyed.noise import Noise, Source, Stream
from adpur.models.lean import LeanUNet
from adpur.models.networks import Networks
from adpur.purify.base import Purifier
from adpur.purify.chain import Chain
from adpur.purify.diffusion import Diffusion
from adpur.purify.levels.curve import Linear, Sigmoid
from adpur.purify.levels.level import Constant, Reweighted, ScoreNorm, calibrate
from adpur.purify.presets import (
    ddpm,
    gdmp,
    gdmp_released,
    revpure,
    scoreopt_n,
    scoreopt_n_released,
    scoreopt_o,
    scoreopt_o_released,
    vp_sde,
    vp_sde_released,
)
from adpur.purify.ssni import released
from adpur.threat.oracle import Oracle
from adpur.types import to_signed

GAIN = 0.3
"""Of the U-Net's last layer: its eps_hat is small, so that rounds move an image but little."""


def small_unet(size: int = 8) -> Denoiser:
    """A U-Net of fixed weights that predicts eps of grey images of `size` x `size`, fp64."""
    net = LeanUNet(size, in_channels=1, widths=(8, 16), blocks=(1, 1), embedding=16).double()
    for k, value in enumerate(net.parameters()):
        z = Noise(torch.tensor([k]), seed=77).normal(value.detach()[None], Stream.TIME)[0]
        spread = 1 / math.sqrt(value[0].numel()) if value.dim() > 1 else 0.1
        # norms' weights start at 1 and stay near it, biases at 0 (or, before they are drawn, near)
        centre = float(value.dim() == 1 and bool((value == 1).all()))
        value.data = spread * z + centre
    net.get_parameter("out_conv.weight").data *= GAIN
    return EpsDenoiser(net.eval(), DiscreteVP(), (1, size, size))


class Projection(nn.Module):
    """Logits of three classes from 32 hidden units: a classifier of fixed weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits `(B, 3)` of images `(B, C, H, W)`."""
        keys = Noise(torch.arange(32), seed=78)
        first = keys.normal(x.new_zeros(32, x[0].numel()), Stream.TIME)
        second = keys.fold(step=1).normal(x.new_zeros(32, 3), Stream.TIME)
        return torch.tanh((x.flatten(1) - 0.5) @ first.T) @ second


@dataclass(frozen=True)
class Lab:
    """Images of uniform noise, a U-Net that takes them, and the noise that both forms share."""

    size: int = 8
    count: int = 4

    @cached_property
    def denoiser(self) -> Denoiser:
        """The U-Net."""
        return small_unet(self.size)

    @property
    def noise(self) -> Noise:
        """Of every purification."""
        return Noise(torch.arange(self.count))

    @property
    def images(self) -> Tensor:
        """In [0, 1], `(count, 1, size, size)`."""
        like = torch.zeros(self.count, self.size * self.size, dtype=torch.float64)
        u = self.noise.fold(seed=79).normal(like, Stream.TIME)
        return (0.5 + 0.5 * u).clamp(0, 1).view(self.count, 1, self.size, self.size)

    @property
    def scale(self) -> float:
        """MSE guidance's, brought to this number of pixels (see `MSE`)."""
        return 6e4 * self.size**2 / 3072

    def defense(self, purifier: Purifier) -> Defense:
        """A defence of the U-Net and a linear classifier."""
        return Defense(purifier, Networks(Projection(), self.denoiser), self.count)

    @torch.no_grad()
    def purified(self, purifier: Purifier) -> Tensor:
        """Signed images."""
        return to_signed(self.defense(purifier)(self.images, self.noise).image)

    def apart(self, one: Purifier, other: Purifier) -> float:
        """Largest difference of the purified images over the largest value of the second."""
        a, b = self.purified(one), self.purified(other)
        return ((a - b).abs().max() / b.abs().max()).item()


SMALL, LARGE = Lab(), Lab(32, 2)


class Pair(NamedTuple):
    """A place where paper and code differ, and by how much here.

    `beside` is what was found with the authors' own code on another U-Net, same noise, fp64.
    """

    method: str
    printed: str
    released: str
    unit: str
    beside: str
    measure: Callable[[], float]


def guided(lab: Lab, batch: int = 1, large: bool = False) -> Purifier:
    """Two rounds of MSE-guided GDMP, of the paper unless something is said of the guidance."""
    return gdmp(36, 2, guidance=ReleasedMSE(lab.scale, batch=batch, large=large))


def own_input() -> float:
    """GDMP guided by each round's own input, and by the original one."""
    own = gdmp(36, 2, guidance=MSE(SMALL.scale), original=False)
    return SMALL.apart(own, guided(SMALL))


def start() -> float:
    """GDMP noised one index later than its walk sets out."""
    one = Diffusion(Constant(36), guidance=MSE(SMALL.scale))
    return SMALL.apart(Chain([replace(one, offset=1)]), Chain([one]))


def batch() -> float:
    """GDMP's likeness averaged over four images, and over one."""
    return SMALL.apart(guided(SMALL, batch=4), guided(SMALL))


def variance() -> float:
    """Sigma in GDMP's shift: beta_t, and the posterior's."""
    return SMALL.apart(guided(SMALL, large=True), guided(SMALL))


def whole() -> float:
    """GDMP with everything as released, and as printed."""
    code = gdmp_released(36, 2, scale=SMALL.scale, batch=100)
    return SMALL.apart(code, guided(SMALL))


def ssim() -> float:
    """Cosine of the pull of SSIM as released to that of SSIM as defined, 16 x 16 images."""
    lab = Lab(16, 2)
    x, t = to_signed(lab.images), torch.full((2,), 36)
    schedule, eps = lab.denoiser.schedule, lab.noise.normal(lab.images, Stream.FORWARD)

    def pull(guidance: Guidance) -> Tensor:
        shift = guidance.shift(schedule.diffuse(x, t, eps), x, t, t - 1, schedule, lab.noise)
        return shift.flatten(1)

    return torch.cosine_similarity(pull(SSIM()), pull(ReleasedSSIM()), dim=1).mean().item()


def vp() -> float:
    """DiffPure's noise by the discrete table, and by the SDE's continuous alpha."""
    return SMALL.apart(vp_sde_released(), vp_sde())


def eps() -> float:
    """||EPS|| at times of the VP-SDE and at DDPM's steps."""
    x, lab = to_signed(SMALL.images), SMALL
    with torch.no_grad():
        a, b = (ScoreNorm(continuous=c)(x, lab.denoiser, lab.noise) for c in (True, False))
    return ((a - b).abs() / b).max().item()


def single() -> float:
    """The single score norm of the image itself, and of the image with noise added."""
    x, lab = to_signed(SMALL.images), SMALL
    with torch.no_grad():
        a, b = (ScoreNorm(20, 1, noised=n)(x, lab.denoiser, lab.noise) for n in (False, True))
    return ((a - b).abs() / b).max().item()


def reweighted(curve: Sigmoid | Linear, lab: Lab, twice: bool | None, steps: int = 20) -> Purifier:
    """SSNI over DDPM in `steps`: as printed (None), or as released with b added once or twice."""
    norm = ScoreNorm(20, 20, continuous=twice is not None)
    keys = Noise(torch.arange(8), seed=80)
    like = lab.images[:1].expand(8, -1, -1, -1)
    clean = (0.5 + 0.25 * keys.normal(like, Stream.TIME)).clamp(0, 1)
    known = calibrate(clean, keys, lab.denoiser, norm, 8)
    over = ddpm(100, steps=steps)
    if twice is not None:
        return released(over, curve, norm, known, twice)
    assert isinstance(over, Diffusion)
    return replace(over, level=Reweighted(100, curve, known, norm))


def sigmoid() -> float:
    """SSNI-N as released, and as printed with no b, 20 steps each."""
    code = reweighted(Sigmoid(bias=5), SMALL, True)
    return SMALL.apart(code, reweighted(Sigmoid(), SMALL, None))


def twice() -> float:
    """SSNI-L with b added to the walk's times again, and once."""
    a, b = (reweighted(Linear(5), SMALL, again) for again in (True, False))
    return SMALL.apart(a, b)


def scoreopt_mean(lab: Lab, images: int) -> float:
    """ScoreOpt-O with a loss averaged over so many images, and summed."""
    return lab.apart(scoreopt_o_released(batch=images), scoreopt_o())


def scoreopt_mates() -> float:
    """ScoreOpt-O in a batch of four, and of one."""
    return LARGE.apart(scoreopt_o_released(batch=4), scoreopt_o_released(batch=1))


def scoreopt_forms() -> float:
    """ScoreOpt-N as printed, and as released."""
    return SMALL.apart(scoreopt_n(0.5, steps=5), scoreopt_n_released(0.5, steps=5, batch=1))


def mean_logits() -> float:
    """Share of pixels in which BPDA-5 EOT-3 on mean cross-entropy and on mean logits differ."""
    lab, row = SMALL, ddpm(100, steps=4)
    defense = lab.defense(row)
    y = torch.arange(lab.count) % 3
    oracle = Oracle(defense, BPDA().view(row), y, lab.noise.fold(source=Source.ATTACK))
    attack = PGD(steps=5, eot=3, step_size=2 / 255, random_start=False)
    a, b = (replace(attack, mean_logits=m).run(oracle, lab.images) for m in (False, True))
    return ((a - b).abs() > 1e-9).double().mean().item()


def reverse_variance() -> float:
    """RevPure with the posterior variance, and with the printed beta_t."""
    return SMALL.apart(revpure(150), revpure(150, fixed_large=True))


DIFFERENCE, COSINE, NORM, PIXELS = "image", "cosine of pulls", "norm", "share of pixels"
PAIRS = [
    Pair("GDMP", "-", "every round is guided by the original input (not by its own)", DIFFERENCE,
         ".07 to .18", own_input),
    Pair("GDMP", "noised to where the walk starts", "one index later", DIFFERENCE,
         "3e-4 to 5e-3", start),
    Pair("GDMP", "MSE of an image", "mean over the batch (here 4)", DIFFERENCE, ".07", batch),
    Pair("GDMP", "Sigma in the shift is the variance", "fixed-large: beta_t", DIFFERENCE,
         "3e-3 to 2e-2", variance),
    Pair("GDMP", "all of it", "`gdmp_released`, batch 100", DIFFERENCE, "-", whole),
    Pair("GDMP", "SSIM", "`pytorch_ssim`: zero padding, range 1", COSINE, "-", ssim),
    Pair("DiffPure", "alpha of the SDE", "alpha of the discrete table at t* - 1", DIFFERENCE,
         "1.1e-3", vp),
    Pair("SSNI", "EPS at DDPM's steps", "at thousandths of the VP-SDE", NORM, ".04", eps),
    Pair("SSNI", "single score of a noised image", "of the image itself", NORM, "-", single),
    Pair("SSNI-N", "t* 100, b 0", "t* 99, b 5, EPS of the SDE, times rounded up", DIFFERENCE,
         "-", sigmoid),
    Pair("SSNI-L", "b once", "b again in the walk's times", DIFFERENCE, "-", twice),
    Pair("ScoreOpt-O", "loss summed", "mean over pixels, 8 x 8", DIFFERENCE, "9e-5",
         lambda: scoreopt_mean(SMALL, 1)),
    Pair("ScoreOpt-O", "loss summed", "mean over pixels, 32 x 32", DIFFERENCE, "1e-2",
         lambda: scoreopt_mean(LARGE, 1)),
    Pair("ScoreOpt-O", "an image alone", "in a batch of four, 32 x 32", DIFFERENCE, "9e-3",
         scoreopt_mates),
    Pair("ScoreOpt-N", "D(x_t) pulled to x_i", "to x_t - sigma e", DIFFERENCE, ".44 to .51",
         scoreopt_forms),
    Pair("BPDA+EOT", "mean cross-entropy", "cross-entropy of mean logits", PIXELS, ".17 to .63",
         mean_logits),
    Pair("RevPure", "sqrt(beta_t) (Eq. 3)", "(our default: the posterior's)", DIFFERENCE,
         "1.2e-2", reverse_variance),
]  # fmt: skip


def table(pairs: Sequence[Pair] = PAIRS) -> list[str]:
    """Markdown lines, one a pair."""
    lines = [
        "| method | as printed | as released | apart | in | the authors' own code |",
        "|---|---|---|---|---|---|",
    ]
    for pair in pairs:
        told = f"{pair.measure():.2g}"
        cells = (pair.method, pair.printed, pair.released, told, pair.unit, pair.beside)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; about a minute."""
    ArgumentParser("python -m adpur.papers.released", description=__doc__).parse_args(argv)
    print("\n".join(table()))


if __name__ == "__main__":
    main()
