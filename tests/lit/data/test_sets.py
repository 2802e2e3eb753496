"""Published data sets held as bytes, in their true formats: what is read, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import RANDOM, md5, sound
from scipy.io import savemat
from torchvision import datasets

from adpur import SVHN, Cifar10C, Cifar100, ConfigError
from adpur.lit.data import published


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cifar-100-python"
    root.mkdir()
    pixels = RANDOM.integers(0, 256, (260, 3072), dtype=np.uint8)
    fine = [k % 100 for k in range(260)]
    for name, rows in (("train", slice(0, 200)), ("test", slice(200, 260))):
        held = {"data": pixels[rows], "fine_labels": fine[rows], "coarse_labels": [0] * 260}
        (root / name).write_bytes(pickle.dumps(held))
        told = [[name, md5(root / name)]]
        monkeypatch.setattr(datasets.CIFAR100, f"{name}_list", told)
    (root / "meta").write_bytes(pickle.dumps({"fine_label_names": [str(k) for k in range(100)]}))
    meta = datasets.CIFAR100.meta | {"md5": md5(root / "meta")}
    monkeypatch.setattr(datasets.CIFAR100, "meta", meta)
    monkeypatch.setattr(published, "VALIDATION", 100)
    return root


def test_cifar100_has_its_fine_labels(cifar100: Path) -> None:
    data = Cifar100(str(cifar100.parent))
    sound(data, {"train": 100, "validation": 100, "test": 60})
    assert data.stacked("validation")[1].bincount().tolist() == [1] * 100
    for x, y, index in (data.split(name)[3] for name in ("train", "validation")):
        official = data.official("train")[int(index)]
        assert torch.equal(x, official[0]) and y == official[1]
    _, y, index = data.stacked("test")
    assert y.tolist() == [k % 100 for k in range(200, 260)]
    assert index.tolist() == list(range(200, 260))


def test_a_wrong_checksum_and_a_missing_folder_are_one_line(
    cifar100: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ADPUR_CIFAR100", raising=False)
    (cifar100 / "train").write_bytes(b"!")
    with pytest.raises(ConfigError, match=r"not the official CIFAR-100 .*; unpack it again$"):
        Cifar100(str(cifar100.parent)).split("test")
    with pytest.raises(ConfigError, match="holds cifar-100-python, got none; set ADPUR_CIFAR100"):
        Cifar100().split("test")
    (cifar100.parent / "test_32x32.mat").touch()
    with pytest.raises(ConfigError, match=r"train_32x32.mat is not the official SVHN"):
        SVHN(str(cifar100.parent)).split("train")


def test_a_download_happens_when_asked_and_fails_in_one_line(
    cifar100: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(url: str, *args: object, **kwargs: object) -> None:
        asked.append(url)
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    Cifar100(str(cifar100.parent), download=True).prepare_data()
    Cifar100(str(cifar100)).prepare_data()
    assert not asked
    with pytest.raises(ConfigError, match="CIFAR-100 cannot be read or downloaded: no network"):
        Cifar100(str(cifar100 / "new"), download=True).prepare_data()
    assert asked == [datasets.CIFAR100.url]


def test_svhn_counts_its_zeros_as_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}
    for part, count in (("train", 60), ("test", 20)):
        pixels = RANDOM.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = 1 + np.arange(count, dtype=np.uint8)[:, None] % 10
        file = tmp_path / f"{part}_32x32.mat"
        savemat(file, {"X": pixels, "y": labels})
        told[part] = ["", file.name, md5(file)]
    monkeypatch.setattr(datasets.SVHN, "split_list", told)
    monkeypatch.setattr(published, "VALIDATION", 20)
    data = SVHN(str(tmp_path))
    sound(data, {"train": 40, "validation": 20, "test": 20})
    x, y, index = data.split("test")[9]
    assert y == 0 and index == 73_257 + 9
    assert torch.equal(x, torch.from_numpy(pixels[..., 9]).permute(2, 0, 1) / 255)


@pytest.fixture
def corrupted(tmp_path: Path) -> Path:
    """The official size, holes in the file but for the ends of severity 3."""
    root = tmp_path / "CIFAR-10-C"
    root.mkdir()
    shape = (50_000, 32, 32, 3)
    fog = np.lib.format.open_memmap(root / "fog.npy", "w+", np.uint8, shape)
    fog[[19_999, 20_000, 29_999]] = np.array([1, 2, 3], np.uint8)[:, None, None, None]
    fog[20_000, 5, 7] = [10, 20, 30]
    fog.flush()
    np.save(root / "labels.npy", np.tile(np.arange(10_000) % 10, 5).astype(np.uint8))
    return root


def test_cifar10c_is_one_corruption_at_one_severity(corrupted: Path) -> None:
    data = Cifar10C("fog", 3, str(corrupted.parent), limit=100)
    x, y, index = data.stacked("test")
    assert x.shape == (10_000, 3, 32, 32) and x[0, 0, 0, 0] == 2 / 255 and x[-1, 0, 0, 0] == 3 / 255
    assert torch.equal(x[0, :, 5, 7], torch.tensor([10, 20, 30]) / 255)
    assert index[0] == 50_000 and y[:12].tolist() == [*range(10), 0, 1]
    with pytest.raises(
        ConfigError, match=r"test images only, got validation; fit on adpur.Cifar10"
    ):
        data.split("validation")


def test_what_is_no_cifar10c_is_refused(corrupted: Path) -> None:
    def refused(match: str, corruption: str = "fog", severity: int = 1) -> None:
        with pytest.raises(ConfigError, match=match):
            Cifar10C(corruption, severity, str(corrupted.parent)).split("test")

    refused("has no frost.npy; there is: fog$", "frost")
    refused("severity: expected 1 to 5, got 6", severity=6)
    np.save(corrupted / "snow.npy", np.zeros((10_000, 32, 32, 3), np.uint8))
    refused(r"snow.npy: expected uint8 \(50000, 32, 32, 3\), got uint8 \(10000, 32", "snow")
    (corrupted / "gone.npy").write_bytes((corrupted / "snow.npy").read_bytes()[:999])
    refused("gone.npy: .*; unpack CIFAR-10-C.tar again", "gone")
    np.save(corrupted / "labels.npy", np.arange(50_000) % 7)
    refused("labels.npy: expected classes 0 to 9, alike for each severity")
    np.save(corrupted / "labels.npy", np.zeros(50_000))
    refused(r"labels.npy: expected integers \(50000,\), got float64")
