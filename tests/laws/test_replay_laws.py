"""RevPure's Theorem 2: replay changes what an attacker knows of a system, not the system.

R(S, x, B) = 1 where S(x'; eta) is right for every x' of the ball and every eta. S under replay is
S at the noise it is handed: the same function of (x', eta), and eta has the same law.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from problems import GaussianDenoiser, LinearClassifier, WavyDenoiser, images
from scipy import stats
from torch import Tensor
from toy import REFERENCE

import adpur
from adpur import (
    L2,
    PGD,
    Constant,
    Defense,
    Diffusion,
    Knowledge,
    Margin,
    Networks,
    Noise,
    Oracle,
    Purifier,
    Reweighted,
    ScoreNorm,
    Sigmoid,
    Source,
    Strided,
    edm,
    gdmp,
    scoreopt_n,
)
from adpur.types import expand

DDPM = Diffusion(Constant(60), Strided(20))
ROWS: dict[str, Purifier] = {
    "ddpm": DDPM,
    "revpure": replace(DDPM, inject=False),
    "ssni": replace(
        DDPM, level=Reweighted(60, Sigmoid(0.5), replace(REFERENCE, mean=8.8), ScoreNorm(20, 5))
    ),
    "gdmp": gdmp(40, 2, 20),
    "edm-sde": edm(0.5, 3, 0.5),
    "scoreopt-n": scoreopt_n(sigma=0.25, steps=2),
}


@pytest.mark.parametrize("row", ROWS)
@torch.no_grad()
def test_a_replayed_system_is_the_system_at_that_noise(row: str) -> None:
    """Bit for bit in fp64, at any point of the ball, whoever asks and however often."""
    defense = Defense(ROWS[row], Networks(LinearClassifier(), WavyDenoiser()), rows=4)
    noise, known = Noise(torch.arange(5), seed=3), Knowledge(2)
    asked = [
        known.evaluate(noise, 99),
        known.attack(noise.fold(restart=3), 8, 2),
        known.select(noise.fold(restart=1), 2, 40),
    ]
    member = torch.arange(2).repeat_interleave(5)  # the same words, spelled without a pool
    eta = Noise(torch.arange(5).repeat(2), 3, Source.POOL, draw=member)
    for seed in (5, 6):
        x = L2().start(images(5), 0.5, Noise(torch.arange(5), seed)).repeat(2, 1, 1, 1)
        want = defense(x, eta).logits
        assert not torch.equal(want[:5], want[5:])
        assert all(torch.equal(defense(x, keys).logits, want) for keys in asked)


@torch.no_grad()
def test_replay_draws_from_the_law_of_fresh_noise() -> None:
    """So an image chosen without knowledge, a clean one above all, fares no better or worse."""
    defense = Defense(DDPM, Networks(LinearClassifier(2), WavyDenoiser()), rows=64)
    x, noise = images(1).repeat(1000, 1, 1, 1), Noise(torch.arange(1000))
    margins = []
    for known in (adpur.white_box(), adpur.replay()):
        out = defense(x, known.evaluate(noise, 1)).logits
        margins.append(Margin().loss(out, torch.zeros(1000, dtype=torch.int64)).numpy())
    assert stats.ks_2samp(*margins).pvalue > 0.01
    assert stats.ks_2samp(margins[0], margins[1] + 0.5 * margins[1].std()).pvalue < 1e-3


EPS = 0.1


class Centred(LinearClassifier):
    """Undecided at grey, so that images near its boundary are far from black and white."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x - 0.5)


def affine(count: int) -> tuple[Oracle, Tensor]:
    """An affine defence, and images EPS from its boundary, more or less as the noise falls."""
    nets = Networks(Centred(2), GaussianDenoiser(mean=0))
    defense, x = Defense(DDPM, nets, rows=16), 0.47 + 0.06 * images(count)
    y, noise = torch.zeros(count, dtype=torch.int64), Noise(torch.arange(count))
    margin, grad, _ = Oracle(defense, DDPM, y, noise.fold(seed=9), loss=Margin()).per_draw(x, 0)
    size = L2().size(grad[0])
    x = x + expand((-margin[0] / size - EPS) / size, x) * grad[0]
    return Oracle(defense, DDPM, y, noise, loss=Margin()), x


def test_replay_succeeds_exactly_where_the_frozen_system_is_not_robust() -> None:
    """Corollary 2.1 with success = 1 - R, in the ball; it prints success = R.

    The affine system at known eta is robust where its margin exceeds eps times the gradient.
    """
    oracle, x = affine(64)
    oracle = replace(oracle, knowledge=adpur.dw_semi(2))
    keys = oracle.knowledge.evaluate(oracle.noise, 2)
    margin, grad, _ = oracle.per_draw(x, 0, 2)
    robust = -margin > EPS * L2().size(grad.flatten(0, 1)).view(2, -1)
    fooled = []
    for member, seed in enumerate((0, 1)):
        one = replace(oracle, knowledge=Knowledge(1, seed=seed))
        found = PGD(EPS, EPS, 1, L2(), eot=1, random_start=False, loss=Margin()).run(one, x)
        assert torch.allclose(L2().size(found - x), torch.tensor(EPS).double())  # no pixel clamped
        logits = oracle.defense(found, keys[member * 64 : (member + 1) * 64]).logits
        fooled.append(logits.argmax(1) != oracle.y)
    success = torch.stack(fooled)
    assert torch.equal(success, ~robust)
    assert 0.1 < success.double().mean() < 0.9
    assert not torch.equal(success[0], success[1])  # R of the system is the worst over all eta


@pytest.mark.parametrize("state", [adpur.dw_forward, adpur.replay, lambda: adpur.dw_semi(4)])
def test_on_an_affine_defence_knowing_the_noise_gains_nothing(
    state: Callable[[], Knowledge],
) -> None:
    """Its gradient holds no noise: what replay reveals elsewhere is curvature (RevPure 4.2)."""
    oracle, x = affine(8)
    attack = PGD(EPS, steps=4, norm=L2(), eot=3, loss=Margin(), random_start=False)
    blind, told = attack.run(oracle, x), attack.run(replace(oracle, knowledge=state()), x)
    assert torch.allclose(blind, told, atol=1e-12) and not torch.equal(blind, x)
