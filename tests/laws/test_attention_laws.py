"""Networks with attention: every exact row on them, to the second order where it is asked for."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F
from problems import LinearClassifier, images
from torch import Tensor, nn

from adpur import (
    MSE,
    SR,
    SSIM,
    Anchored,
    Checkpointed,
    Defense,
    Denoiser,
    DiscreteVP,
    EDMDenoiser,
    EpsDenoiser,
    Exact,
    NCSNpp,
    Networks,
    Noise,
    Oracle,
    Purifier,
    ddpm,
    edm,
    gdmp,
    one_shot,
    scoreopt_n,
    scoreopt_o,
    vp_sde,
)
from adpur.diffusion.adapters import DiffusersNet
from adpur.diffusion.second_order import SecondOrder
from adpur.models.checkpoints.zoo import build_unet

NOISE = Noise(torch.arange(2), seed=2)
Y = torch.tensor([0, 1])
UNET = {
    "sample_size": 4, "in_channels": 1, "out_channels": 1, "layers_per_block": 1,
    "block_out_channels": [4, 8], "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"], "norm_num_groups": 4,
    "attention_head_dim": 4,
}  # fmt: skip
NCSN = {
    "sample_size": 4, "in_channels": 1, "out_channels": 1, "channels": 8, "channel_mult": (1, 1),
    "num_blocks": 1, "attn_resolutions": (2, 4), "dropout": 0.0,
}  # fmt: skip


def stirred(net: nn.Module) -> nn.Module:
    """In fp64, with weights of ordinary size where an untrained network has zeros."""
    gen = torch.Generator().manual_seed(3)
    for p in net.parameters():
        if p.ndim > 1:
            p.data = torch.randn(p.shape, generator=gen) / p[0].numel() ** 0.5
    return net.double().eval()


def of_diffusers() -> Denoiser:
    return EpsDenoiser(DiffusersNet(stirred(build_unet(UNET))), DiscreteVP(), (1, 4, 4))


def of_score_sde() -> Denoiser:
    return EpsDenoiser(stirred(NCSNpp(**NCSN)), DiscreteVP(), (1, 4, 4))


def of_edm() -> Denoiser:
    return EDMDenoiser(stirred(NCSNpp(**NCSN)), (1, 4, 4))


MADE = {"UNet2DModel": of_diffusers, "NCSNpp": of_score_sde, "EDM": of_edm}
ROWS: dict[str, Purifier] = {
    "ddpm": ddpm(40, 20),
    "vp_sde": vp_sde(0.1, 0.05),
    "edm": edm(count=2),
    "one_shot": one_shot(),
    "gdmp mse": gdmp(40, 1, 20, MSE(2e3)),
    "gdmp ssim": gdmp(40, 1, 20, SSIM(2e3, width=0.3)),
    "scoreopt_o": scoreopt_o(steps=2),
    "scoreopt_o anchored": scoreopt_o(steps=1, objective=Anchored()),
    "scoreopt_n sr": scoreopt_n(steps=2, objective=SR()),
}
PAIRS = [(m, r) for m in MADE for r in ROWS if m != "EDM" or r.split()[0] not in ("ddpm", "gdmp")]
"""A network on VE has no integer times, which those rows walk."""


@pytest.mark.parametrize(("made", "row"), PAIRS)
def test_exact_is_finite_differences_and_checkpointed(made: str, row: str) -> None:
    purifier = ROWS[row]
    defense = Defense(purifier, Networks(LinearClassifier(), MADE[made]()), 2)
    x = images(2)

    def asked(mode: Exact | Checkpointed, at: Tensor) -> tuple[Tensor, Tensor]:
        return Oracle(defense, mode.view(purifier), Y, NOISE).value_and_grad(at, 0, 1)

    value, grad = asked(Exact(), x)
    other_value, other = asked(Checkpointed(), x)
    assert torch.equal(value, other_value)
    assert torch.allclose(grad, other, rtol=1e-11, atol=1e-13)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    h = 1e-6
    rise = asked(Exact(), x + h * direction)[0] - asked(Exact(), x - h * direction)[0]
    slope = (grad * direction).flatten(1).sum(1)
    assert torch.allclose(slope, rise / (2 * h), rtol=1e-4, atol=1e-7)
    assert grad.abs().amax() > 1e-6


def test_the_attacker_sees_the_image_that_is_judged() -> None:
    purifier = scoreopt_o(steps=2)
    defense = Defense(purifier, Networks(LinearClassifier(), of_diffusers()), 2)
    x = images(2)
    with torch.no_grad():
        judged = defense(x, NOISE.repeat(1)).image
    seen = defense(x.clone().requires_grad_(), NOISE.repeat(1)).image
    assert torch.equal(judged, seen.detach())


def test_values_are_attentions_to_rounding_and_no_other_thread_is_touched() -> None:
    gen = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 5, 4, generator=gen, dtype=torch.float64)
    plain = F.scaled_dot_product_attention(q, k, v, scale=0.3)
    mask = torch.randn(5, 5, generator=gen, dtype=torch.float64)
    masked = F.scaled_dot_product_attention(q, k, v, mask, 0.0, False)
    with SecondOrder():
        assert torch.allclose(F.scaled_dot_product_attention(q, k, v, scale=0.3), plain, atol=1e-14)
        ours = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        assert torch.allclose(ours, masked, atol=1e-14)
        assert twice(q, k, v)
        with ThreadPoolExecutor(1) as pool:
            assert not pool.submit(twice, q, k, v).result()
    assert not twice(q, k, v)


def twice(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether attention can be differentiated twice here."""
    q = q.clone().requires_grad_()
    out = F.scaled_dot_product_attention(q, k, v)
    (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    try:
        torch.autograd.grad(grad.sum(), q)
    except RuntimeError:  # derivative for ... is not implemented
        return False
    return True


def test_attention_modules_of_torch_are_reached_too() -> None:
    layer = nn.MultiheadAttention(4, 2, batch_first=True).double().eval()
    x = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    with SecondOrder():
        out = layer(x, x, x, need_weights=False)[0]
    (grad,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    assert torch.autograd.grad(grad.square().sum(), x)[0].isfinite().all()
