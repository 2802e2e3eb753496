"""What trainers wrap around weights is taken off and said; of two sets the one taken is named."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from adpur import (
    CifarResNet,
    Classifier,
    ConfigError,
    WideResNet,
    cifar10_classifier,
    load_classifier,
    save_classifier,
)
from adpur.cli import main
from adpur.models.checkpoints.convert import Said, convert

PLAIN = Said(mean=[0.0], std=[1.0])
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def net() -> CifarResNet:
    torch.manual_seed(1)
    return CifarResNet(blocks=1, width=4).eval()


def loaded_as(made: torch.nn.Module) -> bool:
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.equal(load_classifier("out").eval()(x), made(x))


@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module.", "model.", "net.", "module._orig_mod.", "model.net.", "_orig_mod.module."],
)  # fmt: skip
@pytest.mark.parametrize("under", [None, "state_dict", "model_state_dict", "model", "net"])
def test_prefixes_are_taken_off_and_said(prefix: str, under: str | None, capsys: Capture) -> None:
    state = {prefix + k: v for k, v in net().state_dict().items()}
    torch.save({under: state, "epoch": 3, "args": {"lr": 0.1}} if under else state, "net.pt")
    assert main(["convert", "net.pt", "out", "--mean", "0", "--std", "1"]) == 0
    out = capsys.readouterr().out
    assert f"taken off every name: `{prefix}`" in out and (under or "classifier") in out
    assert loaded_as(net())


def test_averaged_weights_beside_raw_ones(capsys: Capture) -> None:
    made, average = net(), net()
    with torch.no_grad():
        average.conv1.weight.mul_(0.5)
    torch.save({"state_dict": made.state_dict(), "ema_state_dict": average.state_dict()}, "x.pt")
    assert main(["convert", "x.pt", "out", "--mean", "0", "--std", "1"]) == 0
    out = capsys.readouterr().out
    assert "weights: `state_dict`; `ema_state_dict` is there too, and was not taken" in out
    assert loaded_as(made)
    torch.save({"ema": average.state_dict(), "model": made.state_dict()}, "y.pt")
    for file, ema in (("x.pt", "ema_state_dict"), ("y.pt", "ema")):
        Path("out").rename(f"before-{ema}")
        assert main(["convert", file, "out", "--mean", "0", "--std", "1", "--weights", ema]) == 0
        assert f"weights: `{ema}`; " in capsys.readouterr().out
        assert loaded_as(average)
    with pytest.raises(ConfigError, match=r"set of weights 'best', found 'state_dict', 'ema_sta"):
        convert(Path("x.pt"), Path("z"), said=Said(mean=[0.0], std=[1.0], weights="best"))


def test_one_state_dict_that_holds_a_network_twice(capsys: Capture) -> None:
    made = net().state_dict()
    twice = {f"model.{k}": v for k, v in made.items()}
    twice |= {f"ema_model.{k}": torch.zeros_like(v) for k, v in made.items()}
    torch.save({"state_dict": twice}, "x.ckpt")
    assert main(["convert", "x.ckpt", "out", "--mean", "0", "--std", "1"]) == 0
    out = capsys.readouterr().out
    assert "`state_dict.model`; `state_dict.ema_model` is there too" in out and loaded_as(net())


def test_torchs_own_averaged_model() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(net())
    torch.save(averaged.state_dict(), "x.pt")
    done = convert(Path("x.pt"), Path("out"), said=PLAIN)
    assert "taken off every name: `module.`" in done.notes and loaded_as(net())


def test_safetensors(capsys: Capture) -> None:
    wide = WideResNet(depth=10, widen=1).eval()
    save_file({f"module.{k}": v for k, v in wide.state_dict().items()}, "net.safetensors")
    assert main(["convert", "net.safetensors", "out", "--mean", "0", "--std", "1"]) == 0
    assert "kind: classifier (guessed" in capsys.readouterr().out and loaded_as(wide)
    Path("net.safetensors").rename("net.pt")  # known by its first bytes
    convert(Path("net.pt"), Path("again"), said=PLAIN)
    Path("cut.safetensors").write_bytes(Path("net.pt").read_bytes()[:-9])
    with pytest.raises(ConfigError, match=r"cut\.safetensors: not a complete safetensors file"):
        convert(Path("cut.safetensors"), Path("cut"), said=PLAIN)


def test_a_published_classifier_of_a_compiled_network() -> None:
    torch.save({f"_orig_mod.{k}": v for k, v in net().state_dict().items()}, "net.pt")
    x = torch.rand(1, 3, 32, 32)
    found = cifar10_classifier("net.pt", [0.0], [1.0])
    assert torch.equal(found.classifier(x), net()(x))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_timms_networks_come_back(name: str) -> None:
    import timm

    torch.manual_seed(0)
    arguments = {"num_classes": 7} | ({"img_size": 32, "patch_size": 8} if "vit" in name else {})
    made = Classifier(timm.create_model(name, **arguments), (3, 32, 32), (0.5,), (0.2,)).eval()
    save_classifier(made, arguments, Path("saved"))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_classifier("saved").eval()(x), made(x))


def test_what_could_not_be_built_again_is_not_saved() -> None:
    made = Classifier(torch.nn.Flatten(), (3, 32, 32))
    with pytest.raises(ConfigError, match=r"timm's, got torch\.nn\.modules\.flatten\.Flatten"):
        save_classifier(made, {}, Path("saved"))
