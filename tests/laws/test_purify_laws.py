"""Algebraic laws of the reverse process (DESIGN section 8), on closed-form denoisers."""

import math

import pytest
import torch
from problems import GaussianDenoiser, WavyDenoiser, images, networks
from purifier_rows import DDPM, NORM, REFERENCE, STEPS, Given, every_row
from torch import Tensor

from adpur import (
    VE,
    Ancestral,
    Constant,
    Corrected,
    Defense,
    Diffusion,
    DiscreteVP,
    EulerMaruyama,
    Flat,
    Heun,
    Linear,
    LinearVP,
    Noise,
    Purifier,
    Reweighted,
    ScoreNorm,
    Sigmoid,
    Step,
    Stream,
    Strided,
)
from adpur.diffusion.schedule import NoiseSchedule

NOISE = Noise(torch.arange(7), seed=3)


def run(purifier: Purifier, x: Tensor, noise: Noise = NOISE, rows: int = 4) -> Tensor:
    return Defense(purifier, networks(), rows)(x, noise).image


@every_row
def test_a_batch_equals_its_rows_alone(purifier: Purifier) -> None:
    x = images(7, torch.float32)
    defense = Defense(purifier, networks(), 4)
    together = defense(x, NOISE)
    for i in range(7):
        alone = defense(x[i : i + 1], NOISE[i : i + 1])
        for name in ("image", "logits", "levels", "snapped", "nfe"):
            assert torch.equal(getattr(together, name)[i : i + 1], getattr(alone, name)), name


@pytest.mark.parametrize("step", STEPS, ids=repr)
def test_mixed_levels_equal_each_alone(step: Step) -> None:
    x, t = images(7, torch.float32), (0.0, 20.0, 60.0, 40.0, 0.0, 100.0, 60.0)
    mixed = run(Diffusion(Given(t), Strided(20), step), x)
    for i, level in enumerate(t):
        alone = run(Diffusion(Constant(level), Strided(20), step), x[i : i + 1], NOISE[i : i + 1])
        assert torch.equal(mixed[i : i + 1], alone)


@pytest.mark.parametrize("ahead", [1, 2 * 64, 3 * 64])
def test_how_much_is_drawn_ahead_changes_no_bit(
    ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, plain = images(7, torch.float32), run(DDPM, images(7, torch.float32))
    monkeypatch.setattr("adpur.diffusion.reverse.AHEAD", ahead)
    assert torch.equal(run(DDPM, x), plain)


def test_flat_reweighting_is_diffpure() -> None:
    x = images(7, torch.float32)
    flat = Diffusion(Reweighted(100, Flat(), REFERENCE, NORM), Strided(20))
    assert torch.equal(run(flat, x), run(Diffusion(Constant(100), Strided(20)), x))


def test_level_zero_returns_the_image() -> None:
    x = images(7)
    assert torch.allclose(run(Diffusion(Constant(0), Strided(20)), x), x, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("step", "schedule"),
    [
        *((step, DiscreteVP()) for step in STEPS if not isinstance(step, Corrected)),
        *((EulerMaruyama(eta), s) for eta in (0, 1) for s in (LinearVP(), VE())),
        (Heun(), VE()),
    ],
    ids=repr,
)
def test_no_time_no_change(step: Step, schedule: NoiseSchedule) -> None:
    if isinstance(step, Ancestral) and not step.rederive:
        pytest.skip("an eps kept beside a clamped x0 moves x even in no time")
    x = images(7)
    for share in (0.0, 0.001, 0.5, 1.0):
        t = torch.full((7,), schedule.end * share)
        t = t.long() if isinstance(schedule, DiscreteVP) else t.double()
        moved = step.step(x, t, t, WavyDenoiser().on(schedule), NOISE).x
        assert torch.allclose(moved, x, rtol=0, atol=1e-11)


def test_deterministic_rows_ignore_their_keys() -> None:
    x = images(7)
    purifier = Diffusion(Constant(100), Strided(20), Ancestral(eta=0), inject=False)
    assert torch.equal(run(purifier, x), run(purifier, x, NOISE.fold(seed=9)))


def test_replay_reproduces_and_fresh_noise_does_not() -> None:
    x, purifier = images(7), DDPM
    assert torch.equal(run(purifier, x), run(purifier, x))
    assert not torch.equal(run(purifier, x), run(purifier, x, NOISE.fold(draw=1)))


def test_ddim_on_a_gaussian_converges_to_the_probability_flow_solution() -> None:
    """x_0 = m + sd (x_t - alpha m) / sqrt(alpha^2 var + sigma^2), approached at first order."""
    denoiser = GaussianDenoiser(mean=0.3, var=0.25)
    schedule, t = denoiser.schedule, torch.full((7,), 600)
    x = images(7)
    x_t = schedule.diffuse(2 * x - 1, t, NOISE.normal(x, Stream.FORWARD))
    alpha, sigma = schedule.alpha(t)[0], schedule.sigma(t)[0]
    exact = 0.3 + 0.5 * (x_t - alpha * 0.3) / (alpha**2 * 0.25 + sigma**2).sqrt()
    errors = []
    for stride in (1, 2, 4):
        purifier = Diffusion(Constant(600), Strided(stride), Ancestral(eta=0))
        found = 2 * Defense(purifier, networks(denoiser), 4)(x, NOISE).image - 1
        errors.append((found - exact).abs().max().item())
    assert errors[0] < 5e-3
    assert errors[1] / errors[0] == pytest.approx(2, abs=0.1)
    assert errors[2] / errors[1] == pytest.approx(2, abs=0.1)


def test_ddpm_on_a_gaussian_has_its_mean_and_spread() -> None:
    denoiser = GaussianDenoiser(mean=0.3, var=0.25)
    x = torch.full((2000, 1, 4, 4), 0.9, dtype=torch.float64)
    purifier = Diffusion(Constant(1000), Strided(2))
    out = 2 * Defense(purifier, networks(denoiser), 500)(x).image - 1
    assert abs(out.mean() - 0.3) < 4 * 0.5 / 32000**0.5 + 5e-3
    assert abs(out.std() - 0.5) < 0.02


def test_the_tap_only_watches() -> None:
    x, seen = images(4), []
    defense = Defense(Diffusion(Constant(60), Strided(20)), networks(), 4)
    plain = defense(x).image
    watched = defense(
        x, tap=lambda s: seen.append((s.to_go.tolist(), s.t.tolist(), s.x0.requires_grad))
    )
    assert torch.equal(plain, watched.image)
    assert seen == [([k] * 4, [20 * k] * 4, False) for k in (3, 2, 1)]


def test_measured_calls_leave_waiting_out() -> None:
    purifier = Diffusion(Given((0.0, 20.0, 60.0, 40.0)), Strided(20))
    assert Defense(purifier, networks(), 4)(images(4)).nfe.tolist() == [0, 1, 3, 2]


def test_score_is_minus_eps_over_sigma() -> None:
    """For x_0 ~ N(m, v): score = -(x_t - alpha m) / (alpha^2 v + sigma^2)."""
    denoiser, x, t = GaussianDenoiser(), images(7), torch.tensor([1, 20, 50, 100, 400, 700, 1000])
    alpha, sigma = (
        f(t).view(-1, 1, 1, 1) for f in (denoiser.schedule.alpha, denoiser.schedule.sigma)
    )
    exact = -(x - alpha * 0.3) / (alpha**2 * 0.25 + sigma**2)
    assert torch.allclose(denoiser.score(x, t), exact, rtol=1e-9, atol=1e-9)


def test_ideal_score_norm_has_the_papers_scale() -> None:
    """An ideal score on a clean CIFAR-shaped image: ||EPS|| near 459 for T' = 20 (papers.md 2)."""

    class Ideal(GaussianDenoiser):
        def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
            return torch.zeros_like(x_t)  # the clean image is 0

    x = torch.zeros(20, 3, 32, 32)
    norms = ScoreNorm(20, 20)(x, Ideal(), Noise(torch.arange(20)))
    assert abs(norms.mean().item() - 459) < 5


@pytest.mark.parametrize(
    ("curve", "norms", "levels"),
    [
        (Linear(), [20, 45, 32.5, 0, 99], [0, 100, 50, 0, 100]),
        (Linear(bias=10), [20, 45], [10, 110]),
        (Sigmoid(8.0), [30, 38, 1e4], [50, 100 / (1 + math.exp(-1)), 100]),
        (Sigmoid(1.0, bias=20, relative=True), [30, 38], [60, 120 / (1 + math.exp(-1))]),
        (Flat(), [0, 50], [100, 100]),
    ],
)
def test_curves(curve: Linear, norms: list[float], levels: list[float]) -> None:
    norm = torch.tensor(norms, dtype=torch.float64)
    want = torch.tensor(levels, dtype=torch.float64)
    assert torch.allclose(curve.reweight(norm, 100, REFERENCE), want)


def test_schedule_matches_the_facts() -> None:
    t = torch.tensor([36, 50, 75, 100, 125, 150])
    schedule = DiscreteVP()
    ratio = schedule.sigma(t) / schedule.alpha(t)
    want = torch.tensor([0.128, 0.173, 0.255, 0.339, 0.426, 0.518])
    assert torch.allclose(ratio.float(), want, atol=6e-4)
    assert schedule.alpha(torch.tensor([0])).item() == 1
