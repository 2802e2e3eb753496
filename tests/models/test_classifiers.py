"""WideResNet under the checkpoints' names, and classifier folders of every kind."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from adpur import Classifier, ConfigError, WideResNet, load_classifier, save_classifier
from adpur.models.checkpoints.zoo import build_classifier


@pytest.mark.parametrize(
    ("depth", "widen", "count"), [(28, 10, 36_479_194), (34, 10, 46_160_474), (70, 16, 266_796_506)]
)
def test_the_published_sizes(depth: int, widen: int, count: int) -> None:
    with torch.device("meta"):
        net = WideResNet(depth, widen)
        assert net(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    assert sum(p.numel() for p in net.parameters()) == count


def test_names_are_those_of_the_checkpoints() -> None:
    with torch.device("meta"):
        state = WideResNet().state_dict()
    block = ("bn1.weight", "bn1.running_var", "conv1.weight", "bn2.bias", "conv2.weight")
    assert {f"block{k}.layer.{i}.{n}" for k in (1, 2, 3) for i in range(4) for n in block} <= set(
        state
    )
    shortcuts = sorted(k for k in state if "convShortcut" in k)
    assert shortcuts == [f"block{k}.layer.0.convShortcut.weight" for k in (1, 2, 3)]
    assert {k.split(".")[0] for k in state} == {"conv1", "block1", "block2", "block3", "bn1", "fc"}


def test_a_block_by_hand() -> None:
    """Pre-activation: the convolved shortcut leaves after bn1 and the activation, the plain before."""
    torch.manual_seed(4)
    net = WideResNet(16, 2, "silu", in_channels=1, classes=4).double().eval()
    x = torch.randn(2, 16, 6, 6, dtype=torch.float64)
    for block in net.block2.layer:
        x = torch.randn(2, block.conv1.in_channels, 6, 6, dtype=torch.float64)
        act = torch.nn.functional.silu(block.bn1(x))
        h = block.conv2(torch.nn.functional.silu(block.bn2(block.conv1(act))))
        want = h + (x if block.convShortcut is None else block.convShortcut(act))
        assert torch.equal(block(x), want)
        assert block(x).shape[-1] == (3 if block.convShortcut is not None else 6)


def test_depth_and_activation_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"expected a depth 6n \+ 4, got 29"):
        WideResNet(29)
    with pytest.raises(ConfigError, match="relu or silu, got 'gelu'"):
        WideResNet(16, 1, "gelu")


def test_a_wide_resnet_folder_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(1)
    arguments = {"depth": 10, "widen": 1, "activation": "silu", "in_channels": 1}
    made = Classifier(WideResNet(**arguments), (1, 8, 8), (0.4,), (0.2,)).eval()
    save_classifier(made, arguments, tmp_path)
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(load_classifier(tmp_path).eval()(x), made(x))


def test_timm_gets_its_number_of_classes_and_our_normalisation(tmp_path: Path) -> None:
    """A timm folder is timm's own state dict beside our config.json."""
    torch.manual_seed(2)
    net = timm.create_model("test_resnet", num_classes=7).eval()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    config = {
        "architecture": "test_resnet", "init_args": {"num_classes": 7}, "shape": [3, 64, 64],
        "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours, x = load_classifier(tmp_path).eval(), torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(config[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    assert ours(x).shape == (2, 7) and torch.equal(ours(x), net((x - mean) / std))
    (tmp_path / "config.json").write_text(json.dumps(config | {"init_args": {"num_classes": 6}}))
    with pytest.raises(ConfigError, match=r"fc\.bias expected \(6,\), found \(7,\)"):
        load_classifier(tmp_path)


def test_nothing_is_fetched_for_a_classifier() -> None:
    with pytest.raises(ConfigError, match="expected init_args without `pretrained`"):
        build_classifier("resnet50", {"pretrained": True})
    with pytest.raises(
        ConfigError, match=r"unknown architecture 'WideResnet'; nearest: WideResNet"
    ):
        build_classifier("WideResnet", {})
    with pytest.raises(ConfigError, match="WideResNet cannot be built with"):
        build_classifier("WideResNet", {"deep": 3})
