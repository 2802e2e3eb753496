"""CIFAR-10: the official layout, fixed splits, and the published classifier on real images."""

import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from adpur import Cifar10, CifarResNet, ConfigError, Networks, cifar10_classifier
from adpur.cli import main
from adpur.lit.data import cifar, published
from adpur.report.table import read_run

REAL = {"ADPUR_CIFAR10", "ADPUR_CIFAR10_CLASSIFIER"} <= os.environ.keys()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The official layout with 100 and 20 images, its checksums told to torchvision."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()

    def write(name: str, content: object) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    pixels = np.random.default_rng(3).integers(0, 256, (120, 3072), dtype=np.uint8)
    labels = [k % 10 for k in range(120)]
    train = [(f"data_batch_{k}", {"data": pixels[20 * k - 20 : 20 * k], "labels": labels[:20]})
             for k in range(1, 6)]  # fmt: skip
    monkeypatch.setattr(CIFAR10, "train_list", [[n, write(n, c)] for n, c in train])
    test = {"data": pixels[100:], "labels": labels[100:]}
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", test)]])
    names = {"label_names": list("abcdefghij")}
    meta = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", names)}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    monkeypatch.setattr(published, "VALIDATION", 30)
    return tmp_path


def test_splits_are_fixed_stratified_and_disjoint(root: Path) -> None:
    parts = {name: Cifar10(str(root)).stacked(name) for name in ("train", "validation", "test")}
    assert {name: len(y) for name, (_, y, _) in parts.items()} == {
        "train": 70, "validation": 30, "test": 20,
    }  # fmt: skip
    assert parts["validation"][1].bincount().tolist() == [3] * 10
    index = torch.cat([part[2] for part in parts.values()])
    assert len(index.unique()) == 120 and parts["test"][2].min() == 100
    x = parts["test"][0]
    pixels = np.random.default_rng(3).integers(0, 256, (120, 3072), dtype=np.uint8)[100:]
    assert torch.equal(x, torch.from_numpy(pixels.reshape(-1, 3, 32, 32)).float() / 255)


def test_what_is_missing_or_damaged_is_told_in_one_line(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ADPUR_CIFAR10", "ADPUR_CIFAR10_CLASSIFIER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="set ADPUR_CIFAR10 to it"):
        Cifar10().split("test")
    with pytest.raises(ConfigError, match="got none; set ADPUR_CIFAR10_CLASSIFIER"):
        cifar10_classifier()
    with (root / "cifar-10-batches-py" / "test_batch").open("ab") as file:
        file.write(b"!")
    cifar._held.cache_clear()
    with pytest.raises(ConfigError, match="not the official CIFAR-10"):
        Cifar10(str(root)).split("test")


def test_a_published_classifier_keeps_its_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = CifarResNet(blocks=1).eval()
    state = {f"module.{k}": v for k, v in net.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "net.th")
    monkeypatch.setenv("ADPUR_CIFAR10_CLASSIFIER", str(tmp_path / "net.th"))
    found, x = cifar10_classifier(), torch.linspace(0, 1, 2 * 3072).view(2, 3, 32, 32)
    assert isinstance(found, Networks) and found.shape == Cifar10.shape
    mean, std = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    assert torch.equal(found.classifier(x), net((x - mean) / std))


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="ADPUR_CIFAR10 and ADPUR_CIFAR10_CLASSIFIER are not both set")
def test_the_bare_classifier_on_real_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About 93 % clean and nothing left at 8/255;."""
    monkeypatch.chdir(tmp_path)
    quiet = ["--trainer.logger=false", "--trainer.enable_progress_bar=false"]
    assert main(["test", "-c", "undefended_cifar10", *quiet]) == 0
    clean, attacked = read_run(tmp_path / "runs" / "undefended_cifar10").outcomes.values()
    assert 0.91 < clean.correct.mean() < 0.97
    assert attacked.correct.mean() < 0.01
