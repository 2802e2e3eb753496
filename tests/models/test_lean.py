"""The networks that two cores train: shapes, refusals, and how they are stored."""

import json
from pathlib import Path

import pytest
import torch

from adpur import (
    Classifier,
    ConfigError,
    Defense,
    DiscreteVP,
    EpsDenoiser,
    Inclusive,
    Jittered,
    LeanUNet,
    LinearVP,
    Networks,
    ScoreNorm,
    WhitenedConvNet,
    ddpm,
    load_classifier,
    load_denoiser,
    save_classifier,
    save_denoiser,
    scoreopt_o,
    vp_sde,
)
from adpur.diffusion.sample import Sampler
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.models.checkpoints.zoo import build_denoiser
from adpur.purify.diffusion import Diffusion
from adpur.purify.levels.level import Constant

SMALL = {"sample_size": 8, "in_channels": 1, "widths": [8, 16], "blocks": [1, 2], "groups": 4}


def lean(max_time: float = 1000, seed: int = 0) -> EpsDenoiser:
    """A drawn network, so that no layer is zero."""
    gen = torch.Generator().manual_seed(seed)
    denoiser = build_denoiser("LeanUNet", SMALL)
    for p in denoiser.parameters():
        p.data.copy_(torch.randn(p.shape, generator=gen) * 0.1)
    denoiser.max_time = max_time
    return denoiser.eval()  # type: ignore[return-value]


def test_the_u_net_begins_as_zero_and_sees_its_time() -> None:
    x, label = torch.randn(3, 3, 16, 16), torch.tensor([0, 5, 99])
    net = LeanUNet(16)
    assert not net(x, label).any()
    drawn = lean()
    one = torch.randn(1, 1, 8, 8).expand(2, -1, -1, -1)
    out = drawn.net(one, torch.tensor([1, 60]))
    assert out.shape == one.shape and not torch.allclose(out[0], out[1], atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"widths": [8], "blocks": [1, 2]}, "as many widths as numbers of blocks"),
        ({"widths": [8, 18]}, "multiples of groups = 4"),
        ({"sample_size": 9}, "sample_size that 2 divides, got 9"),
        ({"depth": 3}, "not a LeanUNet that can be built"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build_denoiser("LeanUNet", SMALL | wrong)


def test_an_unknown_architecture_names_the_known() -> None:
    with pytest.raises(ConfigError, match="UNet2DModel, LeanUNet, NCSNpp, got 'LeanNet'"):
        build_denoiser("LeanNet", SMALL)


@pytest.mark.parametrize("schedule", [DiscreteVP(), DiscreteVP((0.1, 0.2, 0.4)), LinearVP()])
@pytest.mark.parametrize("half", [False, True])
def test_a_folder_gives_back_what_was_written(
    tmp_path: Path, schedule: DiscreteVP | LinearVP, half: bool
) -> None:
    net = lean().net
    denoiser = EpsDenoiser(net, schedule, (1, 8, 8)).eval()
    denoiser.max_time = schedule.end / 2 if isinstance(schedule, LinearVP) else 2
    save_denoiser(denoiser, tmp_path / "w", half)
    back = load_denoiser(tmp_path / "w").eval()
    assert back.schedule == schedule and back.max_time == denoiser.max_time
    assert all(p.dtype == torch.float32 for p in back.parameters())
    want = {k: v.half().float() if half else v for k, v in net.state_dict().items()}
    assert all(torch.equal(v, want[k]) for k, v in back.net.state_dict().items())
    assert (fingerprint(back) == fingerprint(denoiser)) is not half
    save_denoiser(back, tmp_path / "again", half)  # rounding twice is rounding once
    assert fingerprint(load_denoiser(tmp_path / "again")) == fingerprint(back)


def test_half_precision_keeps_buffers_and_refuses_what_it_cannot_hold(tmp_path: Path) -> None:
    net = WhitenedConvNet(widths=(8, 8), in_channels=1, classes=3)
    net.groups[0][2].running_var.fill_(1e6)
    classifier = Classifier(net, (1, 8, 8)).eval()
    arguments = {"widths": [8, 8], "in_channels": 1, "classes": 3}
    save_classifier(classifier, arguments, tmp_path / "w", half=True)
    back = load_classifier(tmp_path / "w").eval()
    assert torch.equal(back.net.groups[0][2].running_var, net.groups[0][2].running_var)
    x = torch.rand(4, 1, 8, 8)
    assert torch.allclose(back(x), classifier(x), atol=1e-2)
    net.linear.weight.data[0, 0] = 1e5
    with pytest.raises(ConfigError, match=r"linear.weight lies beyond fp16's range"):
        save_classifier(classifier, arguments, tmp_path / "v", half=True)


def test_a_stored_limit_must_be_a_time(tmp_path: Path) -> None:
    save_denoiser(lean(200), tmp_path)
    file = tmp_path / "scheduler_config.json"
    config = json.loads(file.read_text())
    assert config["max_time"] == 200
    for wrong in (0, 1001, "200", None):
        file.write_text(json.dumps(config | {"max_time": wrong}))
        with pytest.raises(ConfigError, match=r"expected max_time in 0\.\.1000"):
            load_denoiser(tmp_path)


def test_whatever_asks_for_larger_times_is_refused() -> None:
    """Rows on the network's schedule and on another, score norms, samples; up to it all work."""
    denoiser = lean(200)
    nets = Networks(torch.nn.Flatten(), denoiser)
    reached = denoiser.on(LinearVP()).max_time
    assert 0.19 < reached < 0.21
    for fine in (
        ddpm(200, 20), vp_sde(0.19), Diffusion(Jittered(Constant(150), 50)), scoreopt_o(sigma=0.5)
    ):  # fmt: skip
        Defense(fine, nets)
    for beyond in (
        ddpm(201, 1), ddpm(400, 20), vp_sde(0.25), Diffusion(Jittered(Constant(150), 51)),
        Diffusion(Constant(200), Inclusive(1)), scoreopt_o(sigma=0.7),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match="trained on times up to"):
            Defense(beyond, nets)
    with pytest.raises(ConfigError, match="horizon 300 asks the diffusion model at t = 300"):
        ScoreNorm(300, 5).check(denoiser)
    with pytest.raises(ConfigError, match="drawing samples asks"):
        Sampler(20).check(denoiser)
    Sampler(20).check(lean())


def test_training_times_end_at_the_limit() -> None:
    share = torch.tensor([0.0, 0.4999, 0.5, 0.999999])
    denoiser = lean(200)
    assert denoiser.training_time(share).tolist() == [1, 100, 101, 200]
    assert lean().training_time(share).tolist() == [1, 500, 501, 1000]
    times = LinearVP().quantile(share.double(), 0.2)
    assert times.min() == 1e-3 and times.max() < 0.2 and times.max() > 0.1999


def test_whitening_filters_whiten_patches() -> None:
    gen = torch.Generator().manual_seed(1)
    mixing = torch.randn(3, 3, generator=gen)
    x = torch.einsum("bchw,dc->bdhw", torch.randn(64, 3, 16, 16, generator=gen), mixing)
    net = WhitenedConvNet()
    net.initialise(x)
    out = net.whiten(x)[:, :12].permute(1, 0, 2, 3).flatten(1).double()
    moments = out @ out.T / out.shape[1]
    assert torch.allclose(moments, torch.eye(12).double(), atol=0.05)
    assert torch.equal(net.whiten.weight[:12], -net.whiten.weight[12:])
    assert not net.whiten.weight.requires_grad
