"""DDPM++ / NCSN++: against plain formulas in fp64, published sizes, and what users get wrong."""

import itertools

import pytest
import torch
from checkpoints import (
    NCSN,
    SMALL,
    attended,
    drawn,
    edm_network,
    edm_shapes,
    groups,
    resampled,
    residual,
    sde_network,
    sde_shapes,
)

from adpur import ConfigError, NCSNpp
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.models.checkpoints.foreign import from_edm, from_score_sde
from adpur.models.checkpoints.unpickle import Record
from adpur.models.ncsnpp_blocks import Attention, Block, Resample

NCSN_OURS = {
    "embedding": "fourier", "encoder": "residual", "noise_mult": 2, "resample_filter": (1, 3, 3, 1),
}  # fmt: skip
SDE_SMALL = {"size": 8, "nf": 8, "ch_mult": [1, 2, 1], "blocks": 2, "attn": [4]}


def record(w: dict, kw: dict, kind: str = "SongUNet") -> Record:
    net = Record()
    net.kind, net.state = kind, {"_init_kwargs": kw, "_parameters": w}
    return net


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-10, atol=1e-10)


def test_a_block_is_its_formula() -> None:
    torch.manual_seed(1)
    names = ("norm0", "conv0", "affine", "norm1", "conv1", "skip")
    x, emb = torch.randn(2, 8, 4, 4).double(), torch.randn(2, 16).double()
    for way, taps, outer in itertools.product(("", "up", "down"), ([1, 1], [1, 3, 3, 1]), (8, 16)):
        resize = Resample(taps, up=way == "up") if way else None
        block = Block(8, outer, 16, resize).double()
        for p in block.parameters():
            torch.nn.init.normal_(p)
        assert close(block(x, emb), residual(block.state_dict(), names, x, emb, way, taps))


def test_attention_is_its_formula() -> None:
    torch.manual_seed(2)
    attention, x = Attention(8).double(), torch.randn(2, 8, 3, 3).double()
    for p in attention.parameters():
        torch.nn.init.normal_(p, std=0.3)
    w = attention.state_dict()
    h = groups(w, "norm", x).flatten(2)
    qkv = torch.einsum("bcn,dc->bdn", h, w["qkv.weight"][:, :, 0, 0]) + w["qkv.bias"][:, None]
    proj = w["proj.weight"][:, :, 0, 0]
    want = attended(proj, w["proj.bias"], qkv[:, :8], qkv[:, 8:16], qkv[:, 16:], x)
    assert close(attention(x), want)


def test_resampling_by_one_one_is_mean_and_repeat() -> None:
    x = torch.randn(2, 3, 4, 6).double()
    for way in ("up", "down"):
        assert close(Resample((1, 1), up=way == "up")(x), resampled(x, way, [1, 1]))


@pytest.mark.parametrize("extra", [{}, NCSN, {"channel_mult": [2, 2, 2], "num_blocks": 2}])
def test_edm_networks_are_reproduced(extra: dict) -> None:
    kw = SMALL | extra
    w = {k: v.double() for k, v in drawn(edm_shapes(kw)).items()}
    arguments, state = from_edm(record(w, kw), "here")
    net = NCSNpp(**arguments).double().eval()
    net.load_state_dict(state)
    x, label = torch.randn(2, 3, 8, 8).double(), torch.tensor([-1.3, 0.4]).double()
    assert close(net(x, label), edm_network(w, kw, x, label))


@pytest.mark.parametrize("extra", [{}, {"fourier": True}, {"attn": [8, 2], "blocks": 1}])
def test_score_sde_networks_are_reproduced(extra: dict) -> None:
    kw = SDE_SMALL | extra
    w = {k: v.double() for k, v in drawn(sde_shapes(kw)).items()}
    arguments, state = from_score_sde(w, 8, "here")
    net = NCSNpp(**arguments).double().eval()
    net.load_state_dict(state)
    x, label = torch.randn(2, 3, 8, 8).double(), torch.tensor([12.5, 740.0]).double()
    assert close(net(x, label), sde_network(w, kw, x, label))


def meta(shapes: dict) -> dict:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def test_edm_at_full_size() -> None:
    """55,733,891 as EDM counts it, of which 9 x 128 embed augmentation labels, unused here."""
    kw = {"img_resolution": 32, "in_channels": 3, "out_channels": 3, "label_dim": 0, "dropout": 0.13,
          "augment_dim": 9, "model_channels": 128, "channel_mult": [2, 2, 2]}  # fmt: skip
    whole = kw | {"num_blocks": 4, "attn_resolutions": [16]}
    for extra, theirs, unused in (({}, 55_733_891, 9 * 128), (NCSN, 56_397_827, 9 * 256)):
        w = meta(edm_shapes(whole | extra))
        buffers = {k for k in w if k.endswith(("resample_filter", "freqs"))}
        assert sum(v.numel() for k, v in w.items() if k not in buffers) == theirs
        arguments, state = from_edm(record(w, kw | extra), "here")
        with torch.device("meta"):
            net = NCSNpp(**arguments)
        assert sum(p.numel() for p in net.parameters()) == theirs - unused
        assert {k: v.shape for k, v in state.items()} == {
            k: v.shape for k, v in net.state_dict().items()
        }
        assert net(
            torch.empty(2, 3, 32, 32, device="meta"), torch.empty(2, device="meta")
        ).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("blocks", "fourier", "count"),
    [
        (4, False, 61_804_419),
        (8, False, 106_632_579),
        (4, True, 62_758_787),
        (8, True, 107_586_947),
    ],
)
def test_score_sde_at_full_size(blocks: int, fourier: bool, count: int) -> None:
    """DDPM++ has 61.8 million parameters, deep 106.6 (Song et al. 2021: 62M and 107M)."""
    kw = {
        "size": 32,
        "nf": 128,
        "ch_mult": [1, 2, 2, 2],
        "blocks": blocks,
        "attn": [16],
        "fourier": fourier,
    }
    arguments, state = from_score_sde(meta(sde_shapes(kw)), 32, "here")
    with torch.device("meta"):
        net = NCSNpp(**arguments)
        plain = NCSNpp(num_blocks=blocks, **(NCSN_OURS | {"log_label": True} if fourier else {}))
    assert sum(p.numel() for p in net.parameters()) == count
    assert net.arguments == plain.arguments
    assert {k: v.shape for k, v in state.items()} == {
        k: v.shape for k, v in net.state_dict().items()
    }


def test_labels_of_any_type_and_a_gradient_to_them() -> None:
    net = NCSNpp(8, channels=8, channel_mult=(1, 1), num_blocks=1, attn_resolutions=())
    torch.nn.init.normal_(net.out_conv.weight)
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(net.eval()(x, torch.tensor([3, 5])), net(x, torch.tensor([3.0, 5.0])))
    label = torch.tensor([3.0, 5.0], requires_grad=True)
    for block in net.modules():
        if isinstance(block, Block):
            torch.nn.init.normal_(block.conv1.weight)
    (gradient,) = torch.autograd.grad(net(x, label).sum(), label)
    assert gradient.isfinite().all() and gradient.ne(0).all()
    assert net.half()(x.half(), label.half()).dtype == torch.float16


def test_arguments_show_and_count() -> None:
    a, b = (NCSNpp(8, channels=8, channel_mult=(1, 1), dropout=d) for d in (0.1, 0.2))
    assert '"channel_mult": [1, 1], "channels": 8, "dropout": 0.1' in repr(a)
    b.load_state_dict(a.state_dict())
    assert fingerprint(a) != fingerprint(b)


def test_wrong_arguments_teach() -> None:
    with pytest.raises(ConfigError, match="expected embedding positional or fourier, got 'sin'"):
        NCSNpp(embedding="sin")
    with pytest.raises(ConfigError, match="expected encoder standard or residual"):
        NCSNpp(encoder="skip")
    with pytest.raises(ConfigError, match=r"sample_size divisible by 8 for 4 levels.*got 28"):
        NCSNpp(28)
