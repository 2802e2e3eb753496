"""timm's networks by name: their own data config, weights of the local cache, nothing fetched."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from adpur import ConfigError, Noise, timm_classifier, timm_networks
from adpur.cli import main

NAME = "test_resnet.r160_in1k"


@pytest.fixture
def net(tmp_path: Path) -> torch.nn.Module:
    torch.manual_seed(4)
    net = timm.create_model(NAME).eval()
    save_file(net.state_dict(), tmp_path / "mine.safetensors")
    return net


def normalised(net: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    config = timm.data.resolve_model_data_config(net)
    mean, std = (torch.tensor(config[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    return (x - mean) / std


def test_a_name_brings_its_data_config(net: torch.nn.Module, tmp_path: Path) -> None:
    ours = timm_networks(NAME, str(tmp_path / "mine.safetensors"))
    size = timm.data.resolve_model_data_config(net)["input_size"]
    x = torch.rand(2, *size)
    assert ours.shape == tuple(size) == (3, 160, 160)
    assert torch.equal(ours.classify(x, Noise(torch.arange(2))), net(normalised(net, x)))


def test_weights_come_from_the_cache_and_nothing_is_fetched(
    net: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    with pytest.raises(ConfigError, match=r"\(timm/test_resnet.r160_in1k\) are not in huggingface"):
        timm_classifier(NAME)
    folder = cache / "models--timm--test_resnet.r160_in1k"
    (folder / "snapshots" / "abc").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    (tmp_path / "mine.safetensors").rename(folder / "snapshots" / "abc" / "model.safetensors")
    x = torch.rand(2, 3, 160, 160)
    assert torch.equal(timm_classifier(NAME).eval()(x), net(normalised(net, x)))


def test_what_timm_does_not_know_is_one_line(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ConfigError, match=r"timm:resnet18x: .*; near: resnet") as told:
        timm_classifier("resnet18x")
    assert "\n" not in str(told.value)
    with pytest.raises(ConfigError, match=r"timm:resnet18.nope: Invalid pretrained tag"):
        timm_classifier("resnet18.nope")
    assert main(["audit", "timm:resnet18x", "--data", "digits", "--eps", "0.1"]) == 2
    assert "timm:resnet18x" in capsys.readouterr().err


def test_an_audit_wants_images_of_its_size(
    net: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
    tmp_path: Path,
) -> None:  # fmt: skip
    from adpur.cli.commands import audit

    monkeypatch.setattr(
        audit,
        "timm_classifier",
        lambda name: timm_classifier(name, str(tmp_path / "mine.safetensors")),
    )
    assert main(["audit", f"timm:{NAME}", "--data", "digits", "--eps", "0.1"]) == 2
    assert (
        "takes images of (3, 160, 160) (C, H, W), digits has (1, 8, 8)" in capsys.readouterr().err
    )
