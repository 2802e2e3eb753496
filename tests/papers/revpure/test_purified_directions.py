"""Purified directions of a Gaussian: affine in the image, so that what noise and image do is known."""

import numpy as np
import pytest
import torch
from centred import CENTRED, REVERSE, factors
from problems import SHAPE, GaussianDenoiser, images
from subjects import subject
from torch import Tensor

from adpur import VE, Ancestral, ConfigError, Constant, Diffusion, OneShot, Strided
from adpur.diffusion.denoiser import Denoiser
from adpur.papers.analysis import Answer
from adpur.papers.paths import draws, perturbations
from adpur.papers.revpure.matrices import DirectionMatrices, outside
from adpur.papers.revpure.spectrum import BEFORE, DirectionSpectrum, Tally

FIXED = Diffusion(Constant(60), Strided(30), Ancestral(eta=0), inject=False)
RANDOM = Diffusion(Constant(60), Strided(30))
SAME_INPUT, SAME_NOISE = "same input, other noise", "other inputs, same noise"


def means(answer: Answer) -> dict[object, float]:
    return {r[1]: float(r[5]) for r in answer.rows if r[2] == "all"}


def test_without_randomness_the_noise_says_nothing() -> None:
    """And far out, other inputs go their own ways: P(x + d) - x is all but a multiple of d."""
    one = subject(FIXED, denoiser=GaussianDenoiser())
    near, far = (means(DirectionMatrices(eps, 6).ask([one])) for eps in (1e-4, 1e4))
    assert near[SAME_INPUT] == pytest.approx(1, abs=1e-12)
    assert near[SAME_NOISE] > 0.999
    keys = draws(one.images.noise, 6)
    d = perturbations(one.images.x.repeat(6, 1, 1, 1), keys, 4.0).view(6, 6, 16).transpose(0, 1)
    own = np.mean([outside(np.corrcoef(v.numpy())) for v in d])
    assert far[SAME_NOISE] == pytest.approx(own, abs=1e-3) and own < 0.3


def scaled(x: Tensor, d: Tensor) -> np.ndarray:
    """P(x + d) - x of the closed form, pixels last: in [-1, 1] the image times a number."""
    end = (factors([60, 40, 20, 0])[-1] * (2 * (x + d) - 1) + 1) / 2
    return (end - x).flatten(1).numpy()


def test_directions_are_from_the_clean_image() -> None:
    """P(x + d) - x, not P(x + d), nor from x + d."""
    one = subject(REVERSE, denoiser=CENTRED)
    answer = DirectionMatrices(0.2, 4, image=1).ask([one])
    keys = draws(one.images.noise[1:2], 4)
    x = one.images.x[1:2].expand(4, -1, -1, -1)
    expected = np.corrcoef(scaled(x, perturbations(x, keys, 0.8)))
    found = [float(r[5]) for r in answer.rows if isinstance(r[3], int) and r[1] == SAME_NOISE]
    assert found == pytest.approx(expected.ravel().tolist())
    answer = DirectionSpectrum(50, 0.2, image=1).ask([one])
    keys = draws(one.images.noise[1:2], 50)
    x = one.images.x[1:2].expand(50, -1, -1, -1)
    moved = perturbations(x, keys, 0.8)
    each = zip(moved.flatten(1).numpy(), scaled(x, moved), strict=True)
    own = np.mean([np.corrcoef(d, direction)[0, 1] for d, direction in each])
    mean = {r[1]: float(r[4]) for r in answer.rows if r[2] == "mean correlation"}
    assert mean["one with the other"] == pytest.approx(own) and 0.9 < own < 0.999


def test_noise_decides_where_it_outweighs_the_image() -> None:
    """RevPure's claim, on a row that has noise and in a small ball; the first cell is common."""
    answer = DirectionMatrices(1e-3, 5, image=2).ask([subject(RANDOM)])
    mean = means(answer)
    assert mean[SAME_NOISE] > 0.99 > 0.9 > mean[SAME_INPUT]
    drawn = [r for r in answer.rows if isinstance(r[3], int)]
    assert len(drawn) == 2 * 25 and {r[2] for r in drawn} == {2}
    for name in mean:
        values = {(r[3], r[4]): r[5] for r in drawn if r[1] == name}
        assert all(values[k, k] == pytest.approx(1) for k in range(5))
        assert all(values[j, k] == pytest.approx(values[k, j]) for j, k in values)
        each = [float(r[5]) for r in answer.rows if r[1] == name and r[3] == "mean off-diagonal"]
        assert np.mean(each[:-1]) == pytest.approx(each[-1]) and len(each) == 7
        kept = [float(v) for (j, k), v in values.items() if j != k]
        assert np.mean(kept) == pytest.approx(each[2])


class Flat(Denoiser):
    """Projects on the first `kept` pixels, whatever the noise."""

    def __init__(self, kept: int) -> None:
        super().__init__(VE(), SHAPE)
        self.mask = torch.zeros(SHAPE, dtype=torch.float64)
        self.mask.view(-1)[:kept] = 1

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return x_t * self.mask


ONE_SHOT = Diffusion(Constant(0.5), OneShot(), Ancestral(eta=0), inject=False, schedule=VE())


def curve(answer: Answer, name: str) -> list[float]:
    return [float(r[4]) for r in answer.rows if r[1] == name and r[2] == "explained by"]


def test_directions_lie_where_the_denoiser_puts_them() -> None:
    """Five of sixteen dimensions, equally; the perturbations fill all sixteen, equally."""
    answer = DirectionSpectrum(count=3000, eps=0.1).ask([subject(ONE_SHOT, denoiser=Flat(5))])
    after, before = curve(answer, "purified directions"), curve(answer, BEFORE)
    assert len(after) == len(before) == 16
    assert after[:5] == pytest.approx([k / 5 for k in range(1, 6)], abs=0.03)
    assert after[4] == pytest.approx(1, abs=1e-9)
    assert before == pytest.approx([k / 16 for k in range(1, 17)], abs=0.05)


def test_streaming_is_the_whole() -> None:
    """Incremental PCA of all components is that of the covariance, batches of any size."""
    batch = np.random.default_rng(0).normal(size=(900, 6)) * np.arange(1, 7) + 3
    tally = Tally(6)
    for part in (batch[:400], batch[400:850], batch[850:]):
        tally.add(part)
    spectrum = np.linalg.eigvalsh(np.cov(batch.T))[::-1]
    assert tally.explained == pytest.approx((spectrum.cumsum() / spectrum.sum()).tolist())


def test_correlations_are_pearsons() -> None:
    random = np.random.default_rng(1)
    first, second = random.normal(size=(2, 40, 16))
    tally = Tally(1)
    tally.correlate(first, first)
    assert tally.counts[-1] == 40 and tally.total == pytest.approx(40)
    tally.correlate(first, -first)
    assert tally.counts[0] == 40 and tally.total == pytest.approx(0, abs=1e-9)
    tally = Tally(1)
    tally.correlate(first, second)
    each = [np.corrcoef(a, b)[0, 1] for a, b in zip(first, second, strict=True)]
    assert tally.total / tally.number == pytest.approx(np.mean(each))
    assert tally.shares == pytest.approx(np.histogram(each, np.linspace(-1, 1, 101))[0] / 40)


def test_histograms_count_disjoint_pairs_and_the_own_direction() -> None:
    """Where the purifier scales, the direction is c (x + d) - x; large d correlate wholly."""
    answer = DirectionSpectrum(count=601, eps=1e3).ask(
        [subject(FIXED, denoiser=GaussianDenoiser())]
    )
    mean = {r[1]: float(r[4]) for r in answer.rows if r[2] == "mean correlation"}
    assert mean["one with the other"] == pytest.approx(1, abs=1e-3)
    assert abs(mean[BEFORE]) < 0.05 and abs(mean["purified directions"]) < 0.05
    shares = [r for r in answer.rows if r[2] == "share of correlations near" and r[1] == BEFORE]
    assert len(shares) == 100 and sum(float(r[4]) for r in shares) == pytest.approx(1)


def test_shared_noise_is_one_draw() -> None:
    one = subject(RANDOM, denoiser=GaussianDenoiser())
    own, shared = (
        {r[1]: float(r[4]) for r in DirectionSpectrum(64, 1e-3, same_noise=s).ask([one]).rows
         if r[2] == "mean correlation"}["purified directions"]
        for s in (False, True)
    )  # fmt: skip
    assert shared > 0.999 > 0.9 > own


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: DirectionMatrices(eps=0), "eps > 0 and count >= 2"),
        (lambda: DirectionMatrices(count=1), "eps > 0 and count >= 2"),
        (lambda: DirectionSpectrum(count=3), "count >= 4"),
        (lambda: DirectionSpectrum(components=0), "components >= 1"),
        (lambda: DirectionMatrices(image=6).ask([subject(FIXED)]), "expected image in 0..5, got 6"),
    ],
)
def test_options(wrong: object, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        wrong()  # type: ignore[operator]


def test_images_are_left_alone() -> None:
    one = subject(RANDOM)
    DirectionMatrices(0.1, 3).ask([one])
    assert torch.equal(one.images.x, images(6))
