"""Published data sets and image folders in their true formats: what is read, and what is refused."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from adpur import SVHN, Cifar10, Cifar10C, Cifar100, ConfigError, Folder, ImageNet, TinyImageNet
from adpur.lit.data import folder, imagenet, published, tiny_imagenet
from adpur.lit.data.base import ImageData

RANDOM = np.random.default_rng(5)


@pytest.fixture(autouse=True)
def nothing_is_pointed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Cifar10, Cifar100, SVHN, TinyImageNet, ImageNet):
        monkeypatch.delenv(kind.variable, raising=False)


def forget() -> None:
    """The files have changed within this process."""
    for reader in (tiny_imagenet._train, tiny_imagenet._test, folder._read):
        reader.cache_clear()


def md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def draw(file: Path, height: int = 64, width: int = 64, mode: str = "RGB") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    bands = () if mode == "L" else (len(mode),)
    Image.fromarray(RANDOM.integers(0, 256, (height, width, *bands), dtype=np.uint8)).save(file)
    return file


def as_tensor(file: Path, mode: str = "RGB") -> torch.Tensor:
    pixels = np.asarray(Image.open(file).convert(mode), np.float32)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1) / 255


def sound(data: ImageData, sizes: dict[str, int]) -> None:
    """Splits of these sizes, rows that differ, images in [0, 1] of one shape."""
    parts = {name: data.stacked(name) for name in ("train", "validation", "test")}
    assert {name: len(x) for name, (x, _, _) in parts.items()} == sizes
    assert len(torch.cat([p[2] for p in parts.values()]).unique()) == sum(sizes.values())
    for x, y, index in parts.values():
        assert x.shape[1:] == data.shape and x.min() >= 0 and 0.5 < x.max() <= 1
        assert y.dtype == index.dtype == torch.int64 and y.max() < data.classes


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
    _, y, index = data.stacked("test")
    assert y.tolist() == [k % 100 for k in range(200, 260)]
    assert index.tolist() == list(range(200, 260))


def test_a_wrong_checksum_and_a_missing_folder_are_one_line(cifar100: Path) -> None:
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
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "tiny-imagenet-200"
    for wnid in ("n3", "n1", "n2"):
        for k in range(4):
            mode = "L" if k == 0 else "RGB"  # as some of the official ones are
            draw(root / "train" / wnid / "images" / f"{wnid}_{k}.JPEG", mode=mode)
        (root / "train" / wnid / f"{wnid}_boxes.txt").touch()
    for k in range(12):
        draw(root / "val" / "images" / f"val_{k}.JPEG")
    lines = [f"val_{k}.JPEG\tn{1 + k % 3}\t0\t0\t62\t62\n" for k in range(12)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("n3\nn1\nn2\n")
    monkeypatch.setattr(tiny_imagenet, "TRAIN_IMAGES", 12)
    monkeypatch.setattr(tiny_imagenet, "TEST_IMAGES", 12)
    monkeypatch.setattr(published, "VALIDATION", 3)
    return root


def test_tiny_imagenet_is_tested_on_its_official_validation_images(tiny: Path) -> None:
    data = TinyImageNet(str(tiny.parent))
    sound(data, {"train": 9, "validation": 3, "test": 12})
    x, y, index = data.split("test")[11]
    assert (y, index) == (2, 23)  # val_11 follows val_10, and n3 is the third wnid
    assert torch.equal(x, as_tensor(tiny / "val" / "images" / "val_11.JPEG"))
    assert data.stacked("validation")[1].tolist() == [0, 1, 2]


def test_a_partial_or_damaged_tiny_imagenet_is_refused(tiny: Path) -> None:
    def refused(match: str) -> None:
        forget()
        data = TinyImageNet(str(tiny.parent))
        with pytest.raises(ConfigError, match=match) as told:
            assert [data.stacked(name) for name in ("test", "train")]
        assert "\n" not in str(told.value)

    file = tiny / "val" / "images" / "val_7.JPEG"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    refused(r"val_7.JPEG cannot be decoded \(image file is truncated.*copy it again")
    file.write_bytes(b"no image")
    refused(r"val_7.JPEG cannot be decoded \(cannot identify")
    file.unlink()
    refused("expected 12 images of val_annotations.txt, got 11; unpack it again")
    draw(file, 64, 32)
    refused(r"val_7.JPEG: expected \(3, 64, 64\).*got \(3, 64, 32\)")
    file.write_bytes(whole)
    (tiny / "train" / "n3").rename(tiny / "train" / "n4")
    refused("class folders of wnids.txt, the difference is n3, n4")
    (tiny / "train" / "n4").rename(tiny / "train" / "n3")
    (tiny / "train" / "n3" / "images" / "n3_1.JPEG").unlink()
    refused("expected 12 images, got 11")
    (tiny / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn9\n")
    refused(r"expected FILE, tab, class of wnids.txt, got \['val_0.JPEG', 'n9'\]")
    (tiny / "wnids.txt").unlink()
    refused("wnids.txt: No such file or directory; unpack Tiny ImageNet again")


@pytest.fixture
def thousand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A thousand classes are two here."""
    for k in range(4):
        draw(tmp_path / "val" / f"n{2 - k % 2}" / f"ILSVRC2012_val_{k + 1:08}.JPEG", 30, 40)
    for k in range(8):
        draw(tmp_path / "train" / f"n{1 + k % 2}" / f"n{1 + k % 2}_{k}.JPEG", 48, 36)
    monkeypatch.setattr(imagenet, "CLASSES", 2)
    monkeypatch.setattr(imagenet, "IMAGES", {"train": 8, "test": 4})
    monkeypatch.setattr(published, "VALIDATION", 2)
    return tmp_path


def test_imagenet_is_resized_and_cut_as_usual(thousand: Path) -> None:
    data = ImageNet(str(thousand), size=14, resize=16)
    sound(data, {"train": 6, "validation": 2, "test": 4})
    _, y, index = data.stacked("test")
    assert y.tolist() == [1, 0, 1, 0] and index.tolist() == [8, 9, 10, 11]
    image = Image.open(thousand / "val" / "n2" / "ILSVRC2012_val_00000003.JPEG")
    image = image.resize((21, 16), Image.Resampling.BILINEAR).crop((4, 1, 18, 15))
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    assert torch.equal(data.split("test")[2][0], expected)
    assert ImageNet(str(thousand)).stacked("test")[0].shape == (4, 3, 224, 224)


def test_a_partial_imagenet_is_refused_and_only_what_is_read_is_needed(thousand: Path) -> None:
    data = ImageNet(str(thousand))
    next((thousand / "train" / "n2").iterdir()).unlink()
    assert len(data.split("test")) == 4
    with pytest.raises(ConfigError, match=r"train: expected 8 images, got 7; .* adpur.Folder"):
        data.split("train")
    for file in (thousand / "train" / "n2").iterdir():
        file.unlink()
    with pytest.raises(ConfigError, match="no valid file for the classes n2"):
        data.split("train")
    (thousand / "train" / "n2").rmdir()
    with pytest.raises(ConfigError, match="expected 2 class folders, got 1"):
        data.split("train")
    with pytest.raises(ConfigError, match="size: expected 1 to resize=256, got 300"):
        ImageNet(str(thousand), size=300)


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


def test_a_folder_is_evaluated_as_it_is(tmp_path: Path) -> None:
    files = [draw(tmp_path / name / f"{k}.png", 6, 8) for name in ("cat", "dog") for k in range(2)]
    data = Folder(str(tmp_path))
    x, y, index = data.stacked("test")
    assert data.names == ["cat", "dog"] and data.classes == 2 and data.shape == (3, 6, 8)
    assert torch.equal(x, torch.stack([as_tensor(file) for file in files]))
    assert y.tolist() == [0, 0, 1, 1] and index.tolist() == [0, 1, 2, 3]
    grey = Folder(str(tmp_path), size=4, grey=True)
    assert grey.shape == (1, 4, 4) == grey.stacked("test")[0].shape[1:]
    with pytest.raises(ConfigError, match="has images for test, none for train; put class folders"):
        data.split("train")
    draw(tmp_path / "dog" / "2.png", 7, 8)
    forget()
    with pytest.raises(ConfigError, match=r"2.png: expected .*write `size:`"):
        Folder(str(tmp_path)).stacked("test")


def test_a_folder_of_splits_holds_out_what_it_lacks(tmp_path: Path) -> None:
    for split, count in (("train", 20), ("test", 3)):
        for k in range(count):
            draw(tmp_path / split / f"{k % 2}" / f"{k:02}.png", 6, 6)
    sound(Folder(str(tmp_path)), {"train": 18, "validation": 2, "test": 3})
    draw(tmp_path / "validation" / "0" / "0.png", 6, 6)
    forget()
    with pytest.raises(ConfigError, match=r"validation: expected the class folders .* is 1"):
        Folder(str(tmp_path))
    draw(tmp_path / "validation" / "1" / "0.png", 6, 6)
    sound(Folder(str(tmp_path)), {"train": 20, "validation": 2, "test": 3})
    (tmp_path / "val").mkdir()
    forget()
    with pytest.raises(ConfigError, match="expected train, validation, test, got val beside"):
        Folder(str(tmp_path))
    with pytest.raises(ConfigError, match=r"root: .*lost is not a folder"):
        Folder(str(tmp_path / "lost"))
