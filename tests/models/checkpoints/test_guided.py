"""guided-diffusion's U-Net on diffusers: an independent reference, and the full size by shapes."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from guided_diffusion import Reference, reference

from adpur import ConfigError, DiscreteVP, EpsDenoiser, load_denoiser, save_denoiser
from adpur.diffusion.adapters import DiffusersNet
from adpur.models.checkpoints.guided import convert_guided
from adpur.models.checkpoints.guided_layout import read_layout
from adpur.models.checkpoints.zoo import build_unet

CASES = {
    "three levels, 2 and 3 heads": (((32, 64, 96), 2, (False, True, True), 32), {}),
    "qkv in the newer order": (((32, 64), 1, (False, True), 16), {"per_head": False}),
    "attention everywhere, 3 heads": (((96, 96), 1, (True, True), 32), {}),
    "none but the middle's": (((32, 64), 3, (False, False), 64), {"channels": (1, 2)}),
    "additive time, no variance": (
        ((32, 32), 2, (False, True), 8),
        {"scale_shift": False, "channels": (3, 3)},
    ),
    "strided and plain convolutions": (
        ((32, 64, 64), 2, (False, True, False), 16),
        {"updown": False},
    ),
    "the same, additive time": (
        ((32, 64), 1, (True, False), 32),
        {"updown": False, "scale_shift": False},
    ),
    "one level": (((32,), 1, (True,), 16), {}),
}


@pytest.mark.oracle
@pytest.mark.parametrize("case", CASES)
def test_diffusers_computes_the_same(case: str) -> None:
    args, options = CASES[case]
    net = reference(*args, **options)
    per_head = options.get("per_head", True)
    config, state = convert_guided(net.state_dict(), 16, args[3], per_head)
    unet = UNet2DModel(**config).double().eval()
    unet.load_state_dict(state)
    x = torch.randn(2, config["in_channels"], 16, 16, dtype=torch.float64)
    t = torch.tensor([3, 741])
    with torch.no_grad():
        want, got = net(x, t), unet(x, t).sample
    assert want.std() > 0.1
    assert (got - want).abs().max() <= 1e-12 * want.abs().max()


def test_a_converted_network_is_a_denoiser_folder(tmp_path: Path) -> None:
    """x0_hat of the folder is DDPM's formula on the reference's first half of channels."""
    net = reference((32, 64), 1, (False, True), 16).float()
    config, state = convert_guided(net.state_dict(), 16, 16)
    unet = build_unet(config)
    unet.load_state_dict(state)
    save_denoiser(EpsDenoiser(DiffusersNet(unet), DiscreteVP(), (3, 16, 16)), tmp_path)
    ours = load_denoiser(tmp_path).eval()
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([80, 3])
    alpha, sigma = (
        f(t).float().view(-1, 1, 1, 1) for f in (ours.schedule.alpha, ours.schedule.sigma)
    )
    with torch.no_grad():
        want = (x - sigma * net(x, t - 1)[:, :3]) / alpha
        assert torch.allclose(ours(x, t), want, rtol=1e-4, atol=1e-4)


def test_swapped_head_orders_would_be_seen() -> None:
    net = reference((32, 64), 1, (False, True), 16)
    right = convert_guided(net.state_dict(), 16, 16)[1]
    wrong = convert_guided(net.state_dict(), 16, 16, per_head=False)[1]
    key = "down_blocks.1.attentions.0.to_q.weight"
    assert right.keys() == wrong.keys() and not torch.equal(right[key], wrong[key])


IMAGENET = (256, 256, 512, 512, 1024, 1024), 2, (False, False, False, True, True, True), 64
SMALLER = (192, 384, 576, 768), 3, (False, True, True, True), 64
CIFAR = (128, 256, 256, 256), 3, (False, True, True, False), 64


def test_the_256x256_network_by_shapes() -> None:
    """Dhariwal & Nichol (2021): 256x256 ImageNet, 552.8 million parameters."""
    with torch.device("meta"):
        net = Reference(*IMAGENET)
    state = net.state_dict()
    config, converted = convert_guided(state)
    assert sum(v.numel() for v in state.values()) == 552_814_086
    assert sum(v.numel() for v in converted.values()) == 552_814_086
    joint = [k for k in state if ".qkv." in k]
    assert len(converted) == len(state) + 2 * len(joint)
    assert (config["sample_size"], config["out_channels"]) == (256, 6)
    assert config["down_block_types"] == 3 * ["ResnetDownsampleBlock2D"] + 3 * ["AttnDownBlock2D"]


@pytest.mark.parametrize(
    ("args", "options", "size"),
    [(SMALLER, {}, 64), (CIFAR, {"updown": False}, 32)],
    ids=["64x64", "improved-diffusion CIFAR-10"],
)
def test_other_released_networks_by_shapes(args, options, size) -> None:
    with torch.device("meta"):
        state = Reference(*args, **options).state_dict()
    with pytest.raises(ConfigError, match="--size and --head-dim"):
        convert_guided(state)  # their schedules are not the 1000 linear betas of the others
    config, converted = convert_guided(state, size, 64, per_head=size == 32)
    assert config["sample_size"] == size and config["attention_head_dim"] == 64
    assert sum(v.numel() for v in converted.values()) == sum(v.numel() for v in state.values())


def test_what_cannot_be_said_is_refused() -> None:
    with torch.device("meta"):
        state = Reference((32, 64), 1, (True, True), 32).state_dict()
    with pytest.raises(ConfigError, match=r"got \(32, 64\); say --size and --head-dim"):
        convert_guided(state)
    with pytest.raises(ConfigError, match=r"widths \[32, 64\] to be multiples of head_dim 24"):
        convert_guided(state, 16, 24)
    with pytest.raises(ConfigError, match="it needs class labels"):
        convert_guided(state | {"label_emb.weight": torch.zeros(10, 128)})
    with pytest.raises(ConfigError, match=r"expected guided-diffusion's U-Net.*got conv1\.weight"):
        convert_guided({"conv1.weight": torch.zeros(1)})
    with pytest.raises(ConfigError, match=r"as wide as the first level, 32, got 64"):
        read_layout(state | {"time_embed.0.weight": torch.zeros(256, 64)})


def test_strange_names_and_shapes_are_refused() -> None:
    with torch.device("meta"):
        state = Reference((32, 64), 1, (False, True), 32).state_dict()
    with pytest.raises(ConfigError, match=r"middle_block\.3\.norm: not a name"):
        convert_guided(state | {"middle_block.3.norm.weight": torch.zeros(1)}, 16, 32)
    with pytest.raises(
        ConfigError, match=r"1 parameters do not fit.*expected \(64,\), got \(65,\)"
    ):
        convert_guided(state | {"middle_block.1.norm.weight": torch.zeros(65)}, 16, 32)
    lacking = {k: v for k, v in state.items() if k != "out.2.bias"}
    with pytest.raises(ConfigError, match=r"first conv_out\.bias: expected \(6,\), got none"):
        convert_guided(lacking, 16, 32)
