"""Other heads and schedules: one step of ours is one step of diffusers' own scheduler."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    CMStochasticIterativeScheduler,
    DDIMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UNet2DModel,
)
from guided_diffusion import reference
from torch import Tensor

from adpur import (
    Ancestral,
    ConsistencyDenoiser,
    DiscreteVP,
    EDMDenoiser,
    EpsDenoiser,
    FlowDenoiser,
    LinearVP,
    Noise,
    RectifiedFlow,
    load_denoiser,
    save_denoiser,
)
from adpur.cli import main
from adpur.models.checkpoints.fingerprint import fingerprint

UNET: dict[str, Any] = {
    "sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
    "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "norm_num_groups": 4,
}  # fmt: skip
DDIM = Ancestral(eta=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(2)
    UNet2DModel(**UNET).save_pretrained(tmp_path)
    return tmp_path


def unet(folder: Path) -> UNet2DModel:
    return UNet2DModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
    )


def stepped(denoiser: Any, x: Tensor, t: float, s: float) -> Tensor:
    """One step of the probability flow, x_t to x_s."""
    tt, ss = (torch.full((len(x),), v, dtype=torch.float64) for v in (t, s))
    if isinstance(denoiser.schedule, DiscreteVP):
        tt, ss = tt.long(), ss.long()
    with torch.no_grad():
        return DDIM.step(x, tt, ss, denoiser, Noise(torch.arange(len(x)))).x


def comes_back(denoiser: Any, folder: Path) -> bool:
    save_denoiser(denoiser, folder)
    again = load_denoiser(folder)
    return type(again) is type(denoiser) and fingerprint(again) == fingerprint(denoiser)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching(shift: float, folder: Path) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.save_config(folder)
    ours, theirs, x = load_denoiser(folder).eval(), unet(folder), torch.randn(2, 1, 8, 8)
    assert type(ours) is FlowDenoiser and ours.schedule == RectifiedFlow(1000)
    scheduler.set_timesteps(5)
    for k, t in enumerate(scheduler.timesteps[:4]):
        with torch.no_grad():
            want = scheduler.step(theirs(x, t).sample, t, x).prev_sample
        s, following = scheduler.sigmas[k].item(), scheduler.sigmas[k + 1].item()
        assert torch.allclose(stepped(ours, x, s, following), want, atol=1e-5)
        x = want
    assert comes_back(ours, folder / "again")


def test_edms_preconditioning_around_a_unet(folder: Path) -> None:
    scheduler = EDMEulerScheduler(sigma_max=20.0, sigma_data=0.4)
    scheduler.save_config(folder)
    ours, theirs = load_denoiser(folder).eval(), unet(folder)
    assert type(ours) is EDMDenoiser and (ours.schedule.end, ours.sigma_data) == (20.0, 0.4)
    scheduler.set_timesteps(6)
    x = 20 * torch.randn(2, 1, 8, 8)
    for k, t in enumerate(scheduler.timesteps[:5]):
        with torch.no_grad():
            out = theirs(scheduler.scale_model_input(x, t), t).sample
        want = scheduler.step(out, t, x).prev_sample
        s, following = scheduler.sigmas[k].item(), scheduler.sigmas[k + 1].item()
        assert torch.allclose(stepped(ours, x, s, following), want, rtol=1e-5, atol=1e-5)
        x = want
    assert comes_back(ours, folder / "again")


def test_consistency_models(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of its sampler is the model's image plus noise, of which there is none here."""
    module = "diffusers.schedulers.scheduling_consistency_models"
    monkeypatch.setattr(f"{module}.randn_tensor", lambda shape, **_: torch.zeros(shape))
    scheduler = CMStochasticIterativeScheduler(sigma_data=0.6, clip_denoised=False)
    scheduler.save_config(folder)
    ours, theirs = load_denoiser(folder).eval(), unet(folder)
    assert type(ours) is ConsistencyDenoiser and ours.schedule.end == 80
    scheduler.set_timesteps(timesteps=[39, 30, 20, 8])
    for k, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[k]
        x = sigma * torch.randn(2, 1, 8, 8)
        with torch.no_grad():
            out = theirs(scheduler.scale_model_input(x, t), t).sample
            want = scheduler.step(out, t, x).prev_sample
            found = ours(x, sigma.double().expand(2))
        assert torch.allclose(found, want, rtol=1e-5, atol=1e-5) and want.std() > 1e-3
    x = torch.randn(2, 1, 8, 8)
    for sigma in (0.002, 0.001, 0.0):  # the boundary condition
        assert torch.equal(ours(x, torch.full((2,), sigma)), x)
    assert comes_back(ours, folder / "again")


def test_improved_diffusions_schedule(folder: Path) -> None:
    scheduler = DDIMScheduler(4000, beta_schedule="squaredcos_cap_v2", clip_sample=False)
    scheduler.save_config(folder)
    ours, theirs = load_denoiser(folder).eval(), unet(folder)
    scheduler.set_timesteps(100)
    x = torch.randn(2, 1, 8, 8)
    for t in (3000, 2000, 400, 40):
        with torch.no_grad():
            want = scheduler.step(theirs(x, t - 1).sample, t - 1, x).prev_sample
        assert torch.allclose(stepped(ours, x, t, t - 40), want, atol=1e-5)


def test_improved_diffusions_networks_are_told_a_thousand_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rescale_timesteps: the network sees t * 1000 / 4000, not the index."""
    monkeypatch.chdir(tmp_path)
    net = reference((32, 64), 1, (False, True), 16).float()
    torch.save(net.state_dict(), "improved.pt")
    argv = ["convert", "improved.pt", "out", "--size", "16", "--head-dim", "16"]
    assert main([*argv, "--steps", "4000", "--betas", "cosine", "--label-scale", ".25"]) == 0
    ours, x, t = load_denoiser("out").eval(), torch.randn(2, 3, 16, 16), torch.tensor([3001, 42])
    assert isinstance(ours, EpsDenoiser) and ours.schedule.end == 4000
    s = 0.008  # Nichol & Dhariwal (2021), Eq. 17
    f = torch.cos((torch.tensor([2000, 0]).double() / 4000 + s) / (1 + s) * torch.pi / 2) ** 2
    assert (ours.schedule.alpha(torch.tensor([2000])) ** 2 - f[0] / f[1]).abs() < 1e-4
    with torch.no_grad():
        assert torch.allclose(ours.eps(x, t), net(x, (t - 1) / 4)[:, :3], rtol=1e-4, atol=1e-4)
    save_denoiser(ours, tmp_path / "again")
    assert fingerprint(load_denoiser("again")) == fingerprint(ours)
    assert fingerprint(ours) != fingerprint(_unscaled(ours))


def _unscaled(denoiser: Any) -> Any:
    from adpur.diffusion.adapters import DiffusersNet

    net = DiffusersNet(denoiser.net.unet)
    return EpsDenoiser(net, denoiser.schedule, denoiser.shape)


def test_the_straight_path_is_a_schedule_like_the_others() -> None:
    """The same network at equal noise; the drift and spread of its SDE are those of its path."""
    schedule, t = RectifiedFlow(), torch.tensor([0.0, 0.1, 0.5, 0.9], dtype=torch.float64)
    ratio = schedule.sigma(t) / schedule.alpha(t)
    assert torch.allclose(schedule.at(ratio), t, atol=1e-12)
    assert schedule.at(torch.tensor([torch.inf])).item() == 1
    h = 1e-6
    slope = (schedule.alpha(t + h).log() - schedule.alpha(t).log()) / h
    assert torch.allclose(schedule.drift(t), slope, atol=1e-4)
    rise = ((t + h) ** 2 - t**2) / h
    assert torch.allclose(schedule.spread(t), rise - 2 * slope * t**2, atol=1e-4)

    class Linear(torch.nn.Module):
        def forward(self, x: Tensor, label: Tensor) -> Tensor:
            return 0.3 * x + label.view(-1, 1, 1, 1) / 1000

    flow = FlowDenoiser(Linear(), schedule, (1, 2, 2))
    x, there = torch.randn(2, 1, 2, 2, dtype=torch.float64), LinearVP()
    same = torch.tensor([0.2, 0.6], dtype=torch.float64)
    inner = there.at(schedule.sigma(same) / schedule.alpha(same))
    scaled = there.alpha(inner) / schedule.alpha(same)
    again = flow.on(there)(x * scaled.view(-1, 1, 1, 1), inner)
    assert torch.allclose(again, flow(x, same), atol=1e-9)
