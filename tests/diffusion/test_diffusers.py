"""One step and whole trajectories equal diffusers' DDPM and DDIM to rounding, in fp64."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from problems import WavyDenoiser, images

from adpur import Ancestral, DiscreteVP, Noise, Stream
from adpur.types import expand

pytestmark = pytest.mark.oracle
SCHEDULE = DiscreteVP()


def exact_table(scheduler):  # type: ignore[no-untyped-def]
    """diffusers keeps its tables in fp32; give it ours."""
    scheduler.alphas_cumprod = SCHEDULE.alpha(torch.arange(1, 1001)) ** 2
    scheduler.betas = torch.tensor(SCHEDULE.betas, dtype=torch.float64)
    scheduler.alphas = 1 - scheduler.betas
    scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    if hasattr(scheduler, "final_alpha_cumprod"):
        scheduler.final_alpha_cumprod = scheduler.one
    return scheduler


def one_step(t: int, s: int, step: Ancestral) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Our step, and the eps_hat it saw, on a denoiser with x0_hat beyond [-1, 1] in places."""
    denoiser, x = WavyDenoiser(mean=0.9, var=1.5), 3 * images(6) - 1.5
    noise = Noise(torch.arange(6), step=4)
    tt, ss = torch.full((6,), t), torch.full((6,), s)
    alpha, sigma = (expand(f(tt), x) for f in (SCHEDULE.alpha, SCHEDULE.sigma))
    eps = (x - alpha * denoiser(x, tt)) / sigma
    return step.step(x, tt, ss, denoiser, noise).x, eps, x


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("variance", ["posterior", "fixed_large"])
@pytest.mark.parametrize("stride", [1, 20])
@pytest.mark.parametrize("t", [1000, 500, 100, 20])
def test_ddpm(
    t: int, stride: int, variance: str, clip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {"posterior": "fixed_small", "fixed_large": "fixed_large"}[variance]
    scheduler = exact_table(DDPMScheduler(1000, variance_type=kind, clip_sample=clip))
    scheduler.set_timesteps(timesteps=list(range(999, -1, -stride)))
    ours, eps, x = one_step(t, t - stride, Ancestral(variance=variance, clip=clip))  # type: ignore[arg-type]
    z = Noise(torch.arange(6), step=4).normal(x, Stream.REVERSE)
    if t == stride:  # reaching 0, diffusers still adds noise unless its label is 0; DDPM does not
        z = torch.zeros_like(z)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *a, **k: z)
    theirs = scheduler.step(eps, t - 1, x).prev_sample
    assert torch.allclose(ours, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("t", [1000, 500, 100, 20])
def test_ddim(t: int, clip: bool, eta: float) -> None:
    scheduler = exact_table(DDIMScheduler(1000, clip_sample=clip))
    scheduler.set_timesteps(50)
    ours, eps, x = one_step(t, t - 20, Ancestral(eta=eta, clip=clip))
    z = Noise(torch.arange(6), step=4).normal(x, Stream.REVERSE)
    if t == 20:  # diffusers adds noise even at the last step, of its own final variance (zero)
        z = torch.zeros_like(z)
    theirs = scheduler.step(
        eps, t - 1, x, eta=eta, use_clipped_model_output=True, variance_noise=z
    ).prev_sample
    assert torch.allclose(ours, theirs, rtol=1e-13, atol=1e-13)
