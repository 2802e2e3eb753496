"""Checkpoints of other people: converted to the bit, and never run."""

import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import NCSN, SMALL, drawn, edm_shapes, sde_shapes, write_edm, write_sde
from guided_diffusion import reference

from adpur import (
    CifarResNet,
    ConfigError,
    EDMDenoiser,
    EpsDenoiser,
    NCSNpp,
    WideResNet,
    load_classifier,
    load_denoiser,
    save_denoiser,
)
from adpur.cli import main
from adpur.diffusion.schedule import DiscreteVP, LinearVP
from adpur.models.checkpoints.convert import Said, convert
from adpur.models.checkpoints.foreign import from_edm, from_score_sde
from adpur.models.checkpoints.unpickle import Record, read_pickle

SDE = {"size": 8, "nf": 8, "ch_mult": [1, 2], "blocks": 1, "attn": [4]}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def built(arguments: dict, state: dict) -> NCSNpp:
    net = NCSNpp(**arguments).eval()
    net.load_state_dict(state)
    return net


@pytest.mark.parametrize("extra", [{}, NCSN])
def test_an_edm_pickle(extra: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kw = SMALL | extra
    w = drawn(edm_shapes(kw))
    write_edm(tmp_path / "edm.pkl", w, kw)
    assert "torch_utils" not in sys.modules
    assert main(["convert", "edm.pkl", "out"]) == 0
    assert "kind: edm (guessed from the content)" in capsys.readouterr().out
    net = Record()
    net.kind, net.state = "SongUNet", {"_init_kwargs": kw, "_parameters": w}
    made = EDMDenoiser(built(*from_edm(net, "")), (3, 8, 8), 0.5).eval()
    loaded = load_denoiser("out").eval()
    x, sigma = torch.randn(3, 3, 8, 8), torch.tensor([0.1, 1.0, 7.0])
    assert isinstance(loaded, EDMDenoiser)
    assert torch.equal(loaded(x, sigma), made(x, sigma)) and loaded(x, sigma).std() > 0
    assert not Path("pwned").exists()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("extra", [{}, {"fourier": True}])
def test_a_score_sde_checkpoint(
    extra: dict, legacy: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    w = drawn(sde_shapes(SDE | extra))
    write_sde(tmp_path / "checkpoint_8.pth", w, legacy)
    assert main(["convert", "checkpoint_8.pth", "out", "--size", "8", "--sde", "vp"]) == 0
    out = capsys.readouterr().out
    assert "kind: score_sde (guessed from the content)" in out and "shadow_params" in out
    made = EpsDenoiser(built(*from_score_sde(w, 8, "")), LinearVP(), (3, 8, 8)).eval()
    loaded = load_denoiser("out").eval()
    x, t = torch.randn(3, 3, 8, 8), torch.tensor([0.01, 0.1, 0.7])
    assert isinstance(loaded, EpsDenoiser) and loaded.schedule == LinearVP()
    assert torch.equal(loaded(x, t), made(x, t))


def test_a_guided_checkpoint_becomes_a_folder_that_computes_the_same() -> None:
    """Its size and heads are in no file."""
    net = reference((32, 64), 1, (False, True), 16).float()
    torch.save(net.state_dict(), "guided.pt")
    assert main(["convert", "guided.pt", "out", "--size", "16", "--head-dim", "16"]) == 0
    ours, x, t = load_denoiser("out").eval(), torch.randn(2, 3, 16, 16), torch.tensor([80, 3])
    assert isinstance(ours, EpsDenoiser) and ours.schedule == DiscreteVP()
    with torch.no_grad():
        assert torch.allclose(ours.eps(x, t), net(x, t - 1)[:, :3], rtol=1e-4, atol=1e-4)


class Payload:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_code_is_refused_and_never_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("evil.pkl").write_bytes(pickle.dumps({"ema": Payload()}))
    torch.save({"model": {}, "ema": Payload()}, "evil.pth")
    Path("built.pkl").write_bytes(b'cbuiltins\neval\n(S\'open("pwned","w")\'\ntR.')
    dotted = b"\x80\x04\x8c\x0ctorch._utils\x8c\x1b_rebuild_tensor_v2.__call__\x93."
    Path("dotted.pkl").write_bytes(dotted)
    for name in ("evil.pkl", "evil.pth", "built.pkl", "dotted.pkl"):
        assert main(["convert", name, "out"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "was run" in err and name in err
    with pytest.raises(ConfigError, match=r"it would call posix\.system"):
        read_pickle(Path("evil.pkl"))
    assert not Path("pwned").exists() and not Path("out").exists()


def test_a_storage_inside_a_pickle_cannot_hide_code() -> None:
    class Hidden:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (pickle.dumps(Payload()),)

    Path("hidden.pkl").write_bytes(pickle.dumps({"ema": Hidden()}))
    with pytest.raises(ConfigError, match="not a complete EDM pickle"):
        read_pickle(Path("hidden.pkl"))
    assert not Path("pwned").exists()


def test_a_pickle_cannot_alter_the_reader() -> None:
    """BUILD sets attributes of what a name gave; each name gives a fresh object."""
    from adpur.models.checkpoints import unpickle

    code = b"ctorch.storage\n_load_from_bytes\n(N}S'__call__'\nI1\nstb."
    Path("build.pkl").write_bytes(code)
    before = dict(vars(unpickle._storage))
    with pytest.raises(ConfigError):
        convert(Path("build.pkl"), Path("out"))
    assert vars(unpickle._storage) == before


@pytest.mark.parametrize(
    ("outer", "inner", "change", "told"),
    [
        ("VPPrecond", "SongUNet", {}, "expected an `ema` network EDMPrecond, got VPPrecond"),
        ("EDMPrecond", "DhariwalUNet", {}, "expected network 'SongUNet', got 'DhariwalUNet'"),
        ("EDMPrecond", "SongUNet", {"label_dim": 10}, "expected label_dim 0, got 10"),
        ("EDMPrecond", "SongUNet", {"num_blocks": 2}, r"dec\.4x4_block2\.affine\.bias missing"),
        ("EDMPrecond", "SongUNet", {"model_channels": 16}, r"expected \(64, 16\), found \(32, 8\)"),
    ],
)
def test_other_edm_networks_are_refused(outer: str, inner: str, change: dict, told: str) -> None:
    write_edm(Path("x.pkl"), drawn(edm_shapes(SMALL)), SMALL | change, outer, inner)
    with pytest.raises(ConfigError, match=told):
        convert(Path("x.pkl"), Path("out"))


def test_other_score_sde_networks_are_refused() -> None:
    w = drawn(sde_shapes(SDE | {"fourier": True}))
    write_sde(Path("x.pth"), w)
    with pytest.raises(ConfigError, match="expected --sde vp for a VP network"):
        convert(Path("x.pth"), Path("out"), said=Said(size=8))
    w["4.GroupNorm_9.weight"] = torch.zeros(8)
    write_sde(Path("x.pth"), w)
    with pytest.raises(ConfigError, match=r"4\.GroupNorm_9\.weight unknown"):
        convert(Path("x.pth"), Path("out"), said=Said(size=8, sde="vp"))
    del w["4.Conv_0.weight"]
    write_sde(Path("x.pth"), w)
    with pytest.raises(ConfigError, match="expected score_sde's ncsnpp network with BigGAN blocks"):
        convert(Path("x.pth"), Path("out"), said=Said(size=8, sde="vp"))
    write_sde(Path("x.pth"), {"conv.weight": torch.zeros(1)})
    with pytest.raises(ConfigError, match="expected score_sde's ncsnpp network with BigGAN blocks"):
        convert(Path("x.pth"), Path("out"), said=Said(size=8))
    torch.save({"model": w, "ema": {"shadow_params": []}}, "x.pth")
    with pytest.raises(ConfigError, match="its 0 EMA weights do not fit"):
        convert(Path("x.pth"), Path("out"), said=Said(size=8, sde="vp"))


def test_wrong_files_and_folders_teach() -> None:
    with pytest.raises(ConfigError, match="expected a checkpoint file, found none"):
        convert(Path("none.pkl"), Path("out"))
    torch.save({"weight": torch.zeros(1)}, "x.pt")
    with pytest.raises(ConfigError, match=r"got keys \['weight'\]; say --kind"):
        convert(Path("x.pt"), Path("out"))
    with pytest.raises(ConfigError, match="expected an `ema` network EDMPrecond, got NoneType"):
        convert(Path("x.pt"), Path("out"), "edm")
    Path("cut.pkl").write_bytes(pickle.dumps({"ema": [1.0] * 99})[:-9])
    with pytest.raises(ConfigError, match=r"cut\.pkl: not a complete EDM pickle"):
        convert(Path("cut.pkl"), Path("out"))
    Path("full").mkdir()
    Path("full/notes").touch()
    with pytest.raises(ConfigError, match="expected a new or empty folder, found files"):
        convert(Path("x.pt"), Path("full"))


def test_a_folder_says_all_or_is_refused() -> None:
    kw = {"sample_size": 8, "channels": 8, "channel_mult": [1, 1], "num_blocks": 1}
    saved = EDMDenoiser(NCSNpp(**kw), (3, 8, 8), 0.25, 50.0)
    save_denoiser(saved, Path("out"))
    loaded = load_denoiser("out")
    assert (loaded.sigma_data, loaded.schedule.end) == (0.25, 50.0)
    config = json.loads(Path("out/config.json").read_text())
    Path("out/config.json").write_text(json.dumps(config | {"channels": 16}))
    with pytest.raises(ConfigError, match="does not fit its config"):
        load_denoiser("out")
    Path("out/config.json").write_text(json.dumps(config | {"depth": 16}))
    with pytest.raises(ConfigError, match="not an NCSNpp that can be built"):
        load_denoiser("out")
    Path("out/config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k != "sigma_data"})
    )
    with pytest.raises(ConfigError, match="lacks sigma_data"):
        load_denoiser("out")
    Path("out/scheduler_config.json").write_text('{"_class_name": "FlowScheduler"}')
    with pytest.raises(
        ConfigError, match="expected _class_name DDPMScheduler, LinearVP or VE, found"
    ):
        load_denoiser("out")
    Path("out/scheduler_config.json").unlink()
    with pytest.raises(
        ConfigError, match=r"no scheduler_config\.json says what its time steps mean"
    ):
        load_denoiser("out")


def test_a_network_on_another_schedule_is_not_saved_wrongly() -> None:
    from adpur import VE

    net = NCSNpp(8, channels=8, channel_mult=(1, 1), num_blocks=1)
    with pytest.raises(ConfigError, match=r"on VE \(EDMDenoiser\), got NCSNpp on VE \(EpsDenoiser"):
        save_denoiser(EpsDenoiser(net, VE(), (3, 8, 8)), Path("out"))


@pytest.mark.parametrize(
    "net", [CifarResNet(blocks=2, width=4, classes=7), WideResNet(depth=10, widen=1)], ids=type
)
def test_cifar_classifiers_convert_to_the_bit(net: torch.nn.Module, tmp_path: Path) -> None:
    """As repositories save them: under state_dict, from DataParallel, without newer counters."""
    state = {f"module.{k}": v for k, v in net.state_dict().items() if "num_batches" not in k}
    torch.save({"state_dict": state, "best_prec1": 93.4}, tmp_path / "net.th")
    done = convert(
        tmp_path / "net.th", tmp_path / "out", said=Said(mean=[0.5, 0.4, 0.3], std=[0.2])
    )
    found = load_classifier(tmp_path / "out").eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = net.eval()((x - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / 0.2)
        assert torch.equal(found(x), wanted)
    assert done.kind == "classifier"


def test_a_classifier_of_another_kind_is_refused(tmp_path: Path) -> None:
    torch.save({"linear.weight": torch.zeros(2, 2), "conv1.weight": torch.zeros(4, 3, 3, 3),
                "layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "net.th")  # fmt: skip
    with pytest.raises(ConfigError, match="say --mean and --std"):
        convert(tmp_path / "net.th", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"not a CifarResNet of .*expected"):
        convert(tmp_path / "net.th", tmp_path / "out", said=Said(mean=[0], std=[1]))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"linear.weight": torch.zeros(2)}, None),
        ({"state_dict": 5}, "classifier"),
        ({"state_dict": {"linear.weight": torch.zeros(2, 2)}}, None),
        ({"model": {1: 2}, "ema": {"shadow_params": [3]}}, None),
        ({"model": {"a": 2}, "ema": {"shadow_params": ["b"]}}, None),
        ({"input_blocks.0.0.weight": torch.zeros(1), "time_embed.0.weight": torch.zeros(1)}, None),
        ([1, 2], "score_sde"),
        ([1, 2], "guided"),
    ],
)
def test_strange_contents_are_answered_in_one_line(
    content: object, kind: str | None, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "net.pt")
    with pytest.raises(ConfigError) as told:
        convert(tmp_path / "net.pt", tmp_path / "out", kind, Said(mean=[0], std=[1]))
    assert "net.pt" in str(told.value) and "\n" not in str(told.value)
