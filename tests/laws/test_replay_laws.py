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
from toy import SSNI
from torch import Tensor

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
    Source,
    Strided,
    edm,
    gdmp,
    scoreopt_n,
)
from adpur.noise import ALL

DDPM = Diffusion(Constant(60), Strided(20))
ROWS: dict[str, Purifier] = {
    "ddpm": DDPM,
    "revpure": replace(DDPM, inject=False),
    "ssni": SSNI,
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
    assert stats.ks_2samp(margins[0], margins[1] + 0.2 * margins[1].std()).pvalue < 1e-3


def linear(count: int) -> tuple[Oracle, Tensor]:
    """An affine defence: Gaussian denoiser, linear classifier. Its gradient is one vector."""
    nets = Networks(LinearClassifier(2), GaussianDenoiser())
    x = 0.3 + 0.4 * images(count)
    noise = Noise(torch.arange(count))
    defense = Defense(DDPM, nets, rows=16)
    y = defense(x, Noise(torch.arange(count), seed=9)).logits.argmax(1)
    return Oracle(defense, DDPM, y, noise, loss=Margin()), x


def test_replay_succeeds_exactly_where_the_frozen_system_is_not_robust() -> None:
    """Corollary 2.1 with success = 1 - R, in the ball; it prints success = R.

    The affine system at known eta is robust where its margin exceeds eps times the gradient.
    """
    oracle, x = linear(64)
    oracle, eps = replace(oracle, knowledge=adpur.dw_semi(2)), 0.25
    keys = oracle.knowledge.evaluate(oracle.noise, 2)
    margin, grad, _ = oracle.per_draw(x, 0, 2)
    robust = -margin > eps * L2().size(grad.flatten(0, 1)).view(2, -1)
    fooled = []
    for member, seed in enumerate((0, 1)):
        one = replace(oracle, knowledge=Knowledge(1, seed=seed))
        found = PGD(eps, eps, 1, L2(), eot=1, random_start=False, loss=Margin()).run(one, x)
        assert L2().size(found - x).max() <= eps + 1e-12
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
    oracle, x = linear(8)
    attack = PGD(0.25, steps=4, norm=L2(), eot=3, loss=Margin(), random_start=False)
    blind, told = attack.run(oracle, x), attack.run(replace(oracle, knowledge=state()), x)
    assert torch.allclose(blind, told, atol=1e-12) and not torch.equal(blind, x)
    assert state().streams <= ALL
