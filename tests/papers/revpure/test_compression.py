"""Compression: of an affine purifier the factor itself, whatever the noise, radius or direction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from centred import CENTRED, REVERSE, factors
from problems import GaussianDenoiser, images
from subjects import subject
from torch import Tensor
from toy import SSNI

from adpur import L2, PGD, Ancestral, ConfigError, Constant, Diffusion, Linf, Strided
from adpur.diffusion.schedule import DiscreteVP
from adpur.judging.judge import judge
from adpur.papers.paths import draws, purified
from adpur.papers.revpure.compression import Compression, jacobian, ranked, rate

FACTOR = factors([60, 40, 20, 0])[-1]
NOISY = Diffusion(Constant(60), Strided(20), Ancestral(eta=1), inject=False)


def test_an_affine_purifier_compresses_by_its_factor() -> None:
    one = subject(REVERSE, denoiser=CENTRED)
    for eps in (1e-3, 0.5):
        assert rate(one, eps, 3).tolist() == pytest.approx([FACTOR] * 6)
    answer = Compression(eps=(0.1,), spectra=2, attacked=False).ask([one])
    values = [float(r[4]) for r in answer.rows if r[1] == "singular value"]
    assert values == pytest.approx([FACTOR] * len(values)) and len(values) == 16 * (3 + 2)


def test_noise_is_shared_and_diffusing_scales() -> None:
    """Its noise cancels: DiffPure's rate is alpha(t*) times that of its reverse process alone."""
    alpha = float(DiscreteVP().alpha(torch.tensor([60.0]).double()))
    alone, diffused = (
        rate(subject(replace(NOISY, inject=inject), denoiser=CENTRED), 0.1, 2)
        for inject in (False, True)
    )
    torch.testing.assert_close(diffused, alpha * alone)
    assert float(alone.std()) < 1e-9


def test_a_score_norm_that_sees_the_perturbation_is_no_expansion() -> None:
    """t(x) is that of x at both ends: as small eps shrinks, the rate is that of the Jacobian."""
    one = subject(SSNI, count=1)
    j = jacobian(one.defense, one.images.x, draws(one.images.noise, 1))
    expected = float(torch.linalg.svdvals(j).square().mean().sqrt())
    for length in (1e-4, 4e-2):
        assert float(rate(one, length, 400)) == pytest.approx(expected, rel=0.05)


def test_the_radii_of_an_l2_block_are_lengths() -> None:
    asked = Compression(count=2, spectra=0, attacked=False)
    found = []
    for norm, eps in ((Linf(), 0.1), (L2(), 0.4)):
        one = subject(NOISY, attack=PGD(eps=eps, norm=norm, steps=1))
        found.append([r[4] for r in asked.ask([one]).rows if r[1] == "compression rate"])
    assert found[0] == found[1]  # 16 pixels: 0.1 of each is a length of 0.4


class Mixing(GaussianDenoiser):
    """Bent by the pixel to the left: a Jacobian that is not its transpose."""

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return super().denoise(x_t, t) + 0.3 * torch.sin(x_t.roll(1, 3))


def test_the_jacobian_is_that_of_finite_differences() -> None:
    one = subject(NOISY, denoiser=Mixing())
    x, keys = images(1).clamp(0.1, 0.9), draws(one.images.noise[:1], 1)
    step = 1e-6 * torch.eye(16, dtype=torch.float64).view(16, 1, 4, 4)
    copies = keys.repeat(16).fold(draw=0)
    ends = [purified(one.defense, x + sign * step, copies) for sign in (1, -1)]
    numeric = (ends[0] - ends[1]).flatten(1).T / 2e-6
    found = jacobian(one.defense, x, keys)
    torch.testing.assert_close(found, numeric, atol=1e-7, rtol=0)
    assert float((found - found.T).abs().max()) > 0.1


def test_the_rate_tends_to_the_mean_square_of_the_singular_values() -> None:
    one = subject(NOISY, count=1)
    values = torch.linalg.svdvals(jacobian(one.defense, one.images.x, draws(one.images.noise, 1)))
    many = rate(one, 1e-4, 400)
    assert float(many) == pytest.approx(float(values.square().mean().sqrt()), rel=0.02)


def test_quartiles_are_those_of_the_images() -> None:
    answer = Compression(eps=(0.1, 0.2), count=2, spectra=0, attacked=False).ask([subject(NOISY)])
    for eps in (0.1, 0.2):
        mine = [r for r in answer.rows if r[2] == eps]
        assert [r[3] for r in mine] == ["lower quartile", "median", "upper quartile", *range(6)]
        each = [float(r[4]) for r in mine[3:]]
        told = [float(r[4]) for r in mine[:3]]
        assert told == pytest.approx(np.quantile(each, (0.25, 0.5, 0.75)).tolist())


def test_robustness_stands_beside_it() -> None:
    """Radii are shares of the block's; each image has its share of right draws."""
    one = subject(NOISY, denoiser=GaussianDenoiser())
    answer = Compression(count=1, spectra=0).ask([one])
    assert sorted({r[2] for r in answer.rows if r[1] == "compression rate"}) == pytest.approx(
        [0.0125, 0.025, 0.05, 0.1]
    )
    right = {r[3]: float(r[4]) for r in answer.rows if r[1] == "draws right, attacked"}
    verdict = judge(one.defense, one.images, one.draws, one.trial())
    for score in verdict.scores:
        assert right[score.index] == np.mean([p == score.label for p in score.predictions])
    (rho,) = (r for r in answer.rows if r[1] == "rank correlation")
    assert rho[2:4] == (0.1, "all")


def test_rank_correlation() -> None:
    x = torch.tensor([0.1, 0.4, 0.2, 0.9])
    assert ranked(x, x**3) == pytest.approx(1) and ranked(x, -x) == pytest.approx(-1)
    assert np.isnan(ranked(x, torch.ones(4)))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"spectra": -1}, {"eps": (0.1, 0.0)}])
def test_options(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="expected count >= 1, spectra >= 0 and eps > 0"):
        Compression(**wrong)  # type: ignore[arg-type]


def test_large_images_have_no_whole_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adpur.papers.revpure.compression.LARGEST", 15)
    with pytest.raises(ConfigError, match=r"at most 15 values .* got 16; --spectra=0"):
        Compression(attacked=False).ask([subject(NOISY)])
