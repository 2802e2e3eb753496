"""Score norms: closed forms of a Gaussian, and the order SSNI's Figure 4 shows."""

import pytest
import torch
from problems import GaussianDenoiser
from subjects import subject

from adpur import ConfigError, Constant, Diffusion, Identity, Stream, Strided
from adpur.papers.ssni.norms import NormOverEps, NormOverTime, over_time, score_norm
from adpur.types import expand, to_signed

DIFFPURE = Diffusion(Constant(60), Strided(30))


def test_the_score_of_a_gaussian_is_what_it_is() -> None:
    """Score of N(alpha mean, (var alpha^2 + sigma^2) I) at the diffused image."""
    one = subject(DIFFPURE, denoiser=GaussianDenoiser(0.3, 0.25))
    schedule, x = one.defense.networks.denoiser.schedule, to_signed(one.images.x)
    t = torch.full((len(x),), 400.0, dtype=torch.float64)
    alpha, sigma = (expand(f(t), x) for f in (schedule.alpha, schedule.sigma))
    x_t = alpha * x + sigma * one.images.noise.normal(x, Stream.FORWARD)
    score = (alpha * 0.3 - x_t) / (0.25 * alpha**2 + sigma**2)
    torch.testing.assert_close(over_time(one, one.images, 400.0), score.flatten(1).norm(dim=1))


def test_the_norm_of_a_row_is_the_norm_its_level_is_computed_from() -> None:
    one = subject(DIFFPURE)
    level = one.images._replace(x=one.images.x[:3], noise=one.images.noise[:3])
    assert torch.equal(score_norm(one, one.images)[:3], score_norm(one, level))


def test_norms_grow_with_the_radius() -> None:
    """Clean images at the Gaussian's mean have the smallest norm there is."""
    one = subject(DIFFPURE, denoiser=GaussianDenoiser(0.0, 1e-3))
    grey = one.images._replace(x=torch.full_like(one.images.x, 0.5))
    one = type(one)(one.row, one.defense, one.draws, grey, one.blocks)
    answer = NormOverEps((0.0, 0.05, 0.2)).ask([one])
    assert answer.heading == ("row", "eps", "lower quartile", "median", "upper quartile")
    assert [row[1] for row in answer.rows] == [0.0, 0.05, 0.2]
    medians = [float(row[3]) for row in answer.rows]
    assert medians == sorted(medians) and medians[2] > 2 * medians[0]


def test_far_out_everything_is_noise() -> None:
    """sigma ||score|| tends to sqrt(dimension), clean or attacked."""
    answer = NormOverTime(times=4).ask([subject(DIFFPURE, count=64)])
    assert [row[1] for row in answer.rows] == ["clean"] * 4 + ["attacked"] * 4
    for last in (answer.rows[3], answer.rows[7]):
        assert last[2] == 1000.0 and float(last[4]) == pytest.approx(4.0, rel=0.1)


def test_a_row_that_does_not_purify_has_nothing_to_show() -> None:
    with pytest.raises(ConfigError, match="needs a row that purifies"):
        NormOverEps().ask([subject(Identity())])
    with pytest.raises(ConfigError, match="no attack block 'x'; there is: pgd"):
        NormOverEps(block="x").ask([subject(DIFFPURE)])
