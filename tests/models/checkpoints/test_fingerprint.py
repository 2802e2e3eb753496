"""What a network is called survives torch's releases and adpur's renames, and nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from problems import WavyDenoiser
from torch import nn
from unet import UNET

from adpur import (
    ConfigError,
    EDMDenoiser,
    EpsDenoiser,
    NCSNpp,
    Networks,
    ScoreNorm,
    Seeded,
    Sigmoid,
    WideResNet,
    load_classifier,
    load_denoiser,
)
from adpur.diffusion.adapters import DiffusersNet
from adpur.diffusion.denoiser import Reparametrised
from adpur.diffusion.schedule import VE, DiscreteVP, LinearVP
from adpur.models.checkpoints import fingerprint as made
from adpur.models.checkpoints.fingerprint import fingerprint, is_of, legacy_fingerprint
from adpur.models.checkpoints.zoo import build_unet
from adpur.models.classifiers import CifarResNet, Classifier
from adpur.papers.revpure.theorem.noisy import Ball, HalfSpace
from adpur.purify.levels.level import Reweighted
from adpur.purify.levels.reference import Reference
from adpur.types import ABSENT

SHAPE = (1, 8, 8)
SMALL = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "channels": 8, "num_blocks": 1,
         "channel_mult": (1, 2), "attn_resolutions": (4,), "embedding": "fourier"}  # fmt: skip


def filled(net: nn.Module) -> nn.Module:
    """Every tensor set to numbers that no machine rounds."""
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            numbers = torch.arange(tensor.numel()) * 7919 % 1021 / 512 - 1
            tensor.copy_(numbers.view(tensor.shape))
    return net


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "unet": lambda: EpsDenoiser(DiffusersNet(build_unet(UNET, "unet")), DiscreteVP(), SHAPE),
    "ncsnpp": lambda: EDMDenoiser(NCSNpp(**SMALL), SHAPE),
    "linear": lambda: EpsDenoiser(NCSNpp(**SMALL), LinearVP(), SHAPE),
    "resnet": lambda: Classifier(CifarResNet(1, in_channels=1), SHAPE, (0.5,), (0.25,)),
    "wide": lambda: Seeded(WideResNet(10, 1, "silu")),
    "ball": lambda: Ball(0.5, 0.25),
    "half-space": lambda: HalfSpace(4, 0.5),
}


GOLDEN = {
    "unet": ("v2-e919b48f61787e542de47ec8083460a976fd6bac0f8a465b05b02b16021b89d2",
             "be677c9463204bf5809f734ba6eb72767f950b1a5e68cb1f22fff5bab96ee349"),
    "ncsnpp": ("v2-11c1809d9f2a689f3c873a509c66b1b0ec3b8a971f209a577578c531afc6b3f5",
               "8e362500633626b24c3e328ae18cda141e920846c30b891c2f7d01ec308f438b"),
    "linear": ("v2-0c5555232e6fbb5a214cf5686a5b041dec323e20c72fd289a54f48506e03b387",
               "dcfaae4c6e53757c9842b4e5e8ee6c663395d8b3dab4dd0419c217af0ef57221"),
    "resnet": ("v2-d3a50e7258f13e91275791f769f331a941f96b6ab4c3c43abe50536cd0161a2f",
               "035dc3f48ce626594a8acd258a9b6537c281fc77c1469be2a923147f7359f1c7"),
    "wide": ("v2-de48e92cd78aeecd3aa3993464606f590eba80b73585f72b8973b91fc024542b",
             "a14658b7d86e6d108ed6db59fbddd7c02c2a8f1edd7888e9a40539a5886402b2"),
    "ball": ("v2-d1eb6f2f27b1cf1666fd0f9d3aaa27991db32748bb60fc1f24080d459eeccfd8",
             "5a93faadbd057936d11525d9fc302be0d31138c0d969c4962868a753cc76f5cf"),
    "half-space": ("v2-e016841b4fb219c8eb830551e02b25d90c4a3da9ae3f3662c104869e2622fa37",
                   "f18a84dd7c61d326d3313cebc1eb57496503cfa861d87827ff0578f928eb869a"),
}  # fmt: skip
"""Today's form, and what adpur 0.1.0 gave (by its own code).

Where this fails after a class was renamed, give it `fingerprinted_as`; after a schedule got a
field, give that `metadata={ABSENT: ...}`. Never write a new number here: records out there hold the
old one.
"""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_fingerprint_never_changes(name: str) -> None:
    net = filled(NETWORKS[name]())
    today, before = GOLDEN[name]
    assert fingerprint(net) == today and legacy_fingerprint(net) == before
    assert is_of(today, net) and is_of(before, net)
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            tensor.view(-1)[0] += 1
            assert not is_of(today, net) and not is_of(before, net)
            tensor.view(-1)[0] -= 1
    assert is_of(today, net)


def test_a_renamed_class_keeps_both_fingerprints(monkeypatch: pytest.MonkeyPatch) -> None:
    from adpur.models import classifiers

    class Shortcut(classifiers._Block):
        fingerprinted_as = "_Block"

    Shortcut.__module__ = classifiers.__name__
    plain = filled(NETWORKS["resnet"]())
    monkeypatch.setattr(classifiers, "_Block", Shortcut)
    renamed = filled(NETWORKS["resnet"]())
    assert "Shortcut(" in repr(renamed) and "_Block(" not in repr(renamed)
    assert fingerprint(renamed) == fingerprint(plain)
    assert legacy_fingerprint(renamed) == legacy_fingerprint(plain)
    del Shortcut.fingerprinted_as
    assert fingerprint(renamed) != fingerprint(plain)
    assert legacy_fingerprint(renamed) != legacy_fingerprint(plain)


def test_another_repr_is_the_same_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """GroupNorm's changed between torch 2.11 and 2.15, and refused the shipped reference."""
    net = load_denoiser("digits/diffusion")
    today, before = fingerprint(net), legacy_fingerprint(net)
    monkeypatch.setattr(
        nn.GroupNorm,
        "extra_repr",
        lambda s: f"{s.num_groups}, {s.num_channels}, eps={s.eps}, affine={s.affine}",
    )
    assert fingerprint(net) == today and legacy_fingerprint(net) == before
    monkeypatch.setattr(nn.Conv2d, "extra_repr", lambda s: "another release")
    assert fingerprint(net) == today and legacy_fingerprint(net) != before


def test_an_argument_that_torch_adds_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(nn.SiLU())
    plain = nn.SiLU.__init__

    def newer(self: nn.SiLU, inplace: bool = False, slope: float = 1.0) -> None:
        plain(self, inplace)
        self.slope = slope

    made._arguments.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(nn.SiLU, "__init__", newer)
        assert fingerprint(nn.SiLU()) == before != fingerprint(nn.SiLU(slope=2.0))
    made._arguments.cache_clear()


class Own(nn.Module):
    """A user's."""

    def __init__(self, heads: int, sides: tuple[int, ...] = (1, 2)) -> None:
        super().__init__()
        self.heads, self.sides = heads, sides


class Shown(nn.Module):
    """A user's, who says more than the constructor keeps."""

    def __init__(self, heat: float) -> None:
        super().__init__()
        self.warmth = heat

    def extra_repr(self) -> str:
        return f"{self.warmth}"


def eps(inner: DiscreteVP | LinearVP) -> EpsDenoiser:
    return EpsDenoiser(nn.Identity(), inner, SHAPE)


DIFFERENT = {
    "activation": (nn.ReLU(), nn.SiLU()),
    "slope": (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
    "approximation": (nn.GELU(), nn.GELU("tanh")),
    "kernel": (nn.MaxPool2d(2, 1), nn.MaxPool2d(3, 1)),
    "stride": (nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, stride=2)),
    "padding": (nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, padding=1)),
    "padding by name": (nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, padding="same")),
    "padding mode": (nn.Conv2d(1, 1, 3, padding=1),
                     nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")),
    "dilation": (nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3, dilation=2)),
    "eps": (nn.GroupNorm(2, 4), nn.GroupNorm(2, 4, eps=1e-6)),
    "groups": (nn.GroupNorm(2, 4), nn.GroupNorm(4, 4)),
    "statistics": (nn.BatchNorm2d(2), nn.BatchNorm2d(2, track_running_stats=False)),
    "heads": (nn.MultiheadAttention(4, 1), nn.MultiheadAttention(4, 2)),
    "norm first": (nn.TransformerEncoderLayer(4, 2), nn.TransformerEncoderLayer(4, 2, norm_first=True)),
    "a function": (nn.TransformerEncoderLayer(4, 2), nn.TransformerEncoderLayer(4, 2, activation="gelu")),
    "upsampling": (nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear")),
    "dropout": (nn.Dropout(0.1), nn.Dropout(0.2)),
    "place": (nn.Sequential(nn.ReLU(), nn.SiLU()), nn.Sequential(nn.SiLU(), nn.ReLU())),
    "a user's argument": (Own(1), Own(2)),
    "a user's tuple": (Own(1), Own(1, (1, 3))),
    "a user's words": (Shown(0.1), Shown(0.2)),
    "schedule": (eps(DiscreteVP((0.1,) * 9)), eps(DiscreteVP((0.2,) * 9))),
    "schedule's class": (eps(DiscreteVP()), eps(LinearVP())),
    "a schedule within": (Reparametrised(eps(LinearVP()), VE()),
                          Reparametrised(eps(LinearVP(0.2)), VE())),
    "sigma_data": (EDMDenoiser(nn.Identity(), SHAPE), EDMDenoiser(nn.Identity(), SHAPE, 0.4)),
    "what no tensor of a U-Net shows": (DiffusersNet(build_unet(UNET, "a")),
                                        DiffusersNet(build_unet(UNET | {"freq_shift": 1}, "a"))),
    "what no tensor of a NCSN++ shows": (NCSNpp(**SMALL), NCSNpp(**SMALL | {"log_label": True})),
    "a ball": (Ball(0.5, 0.25), Ball(0.5, 0.3)),
}  # fmt: skip


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_changes_a_network_changes_its_fingerprint(what: str) -> None:
    one, two = (filled(net) for net in DIFFERENT[what])
    assert fingerprint(one) != fingerprint(two)


def test_what_changes_nothing_changes_no_fingerprint() -> None:
    net = filled(NETWORKS["resnet"]())
    before = fingerprint(net)
    assert fingerprint(net.eval()) == before == fingerprint(net.train())
    assert fingerprint(nn.ReLU(inplace=True)) == fingerprint(nn.ReLU())

    def pair(*names: str) -> nn.Module:
        both = nn.Module()
        for name in names:
            both.add_module(name, filled(nn.Conv2d(1, 1, 1 + len(name))))
        return both

    assert fingerprint(pair("a", "bb")) == fingerprint(pair("bb", "a"))
    shared = nn.Linear(2, 2)
    again = nn.Linear(2, 2)
    again.load_state_dict(shared.state_dict())
    assert fingerprint(nn.Sequential(shared, shared)) == fingerprint(nn.Sequential(shared, again))


def test_a_schedule_may_get_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class VE2(VE):
        floor: float = field(default=0.5, metadata={ABSENT: 0.0})

    VE2.fingerprinted_as = "VE"  # type: ignore[attr-defined]
    VE2.__module__ = VE.__module__
    nets = [
        EpsDenoiser(nn.Identity(), schedule, SHAPE) for schedule in (VE(), VE2(floor=0.0), VE2())
    ]
    assert fingerprint(nets[0]) == fingerprint(nets[1]) != fingerprint(nets[2])
    assert legacy_fingerprint(nets[0]) == legacy_fingerprint(nets[1]) != legacy_fingerprint(nets[2])


def test_a_reference_of_either_form_is_accepted_and_of_another_network_refused() -> None:
    scorer = WavyDenoiser()
    nets = Networks(load_classifier("digits/classifier"), scorer)

    def level(told: str) -> Reweighted:
        reference = Reference(30, 8, 20, 45, count=9, horizon=20, levels=5, scorer=told)
        return Reweighted(60, Sigmoid(5.0), reference, ScoreNorm(20, 5))

    for told in (fingerprint(scorer), legacy_fingerprint(scorer)):
        level(told).check(nets)
        with pytest.raises(ConfigError, match="measured with another diffusion model"):
            level(told[:-1] + "x").check(nets)


def test_a_method_may_tell_what_is_not_seen() -> None:
    class Telling(nn.Module):
        def __init__(self, told: Any) -> None:
            super().__init__()
            self.held = told

        def fingerprinted(self) -> dict[str, Any]:
            return {"held": self.held}

    assert fingerprint(Telling([1, 2])) == fingerprint(Telling((1, 2))) != fingerprint(Telling([1]))
