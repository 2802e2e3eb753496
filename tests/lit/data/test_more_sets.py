"""CIFAR-10.1, ImageNet-C, MedMNIST and the hub's parquet files, small and in their true formats."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import as_tensor, draw, sound
from PIL import Image

from adpur import Cifar10_1, ConfigError, ImageNetC, MedMNIST, Parquet
from adpur.lit.data import cifar10_1, imagenet

RANDOM = np.random.default_rng(3)


def test_cifar10_1_has_rows_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10_1, "IMAGES", {"v4": 21, "v6": 20})
    pixels = RANDOM.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    np.save(tmp_path / "cifar10.1_v6_data.npy", pixels)
    np.save(tmp_path / "cifar10.1_v6_labels.npy", (np.arange(20) % 10).astype(np.int32))
    x, y, index = Cifar10_1(root=str(tmp_path)).stacked("test")
    assert torch.equal(x, torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)
    assert y.tolist() == [*range(10)] * 2 and index.tolist() == list(range(60_000, 60_020))
    with pytest.raises(ConfigError, match="set ADPUR_CIFAR10_1 to it"):
        Cifar10_1("v4", str(tmp_path)).split("test")
    with pytest.raises(ConfigError, match="version: expected v4 or v6"):
        Cifar10_1("v5", str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="test images only, got train"):
        Cifar10_1(root=str(tmp_path)).split("train")
    np.save(tmp_path / "cifar10.1_v6_labels.npy", np.arange(20))
    with pytest.raises(ConfigError, match="expected classes 0 to 9; fetch it again"):
        Cifar10_1(root=str(tmp_path)).split("test")
    np.save(tmp_path / "cifar10.1_v6_data.npy", pixels[:7])
    with pytest.raises(ConfigError, match=r"expected uint8 \(20, 32, 32, 3\), got uint8 \(7, 32"):
        Cifar10_1(root=str(tmp_path)).split("test")


def test_imagenet_c_has_the_rows_of_its_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet, "CLASSES", 2)
    monkeypatch.setattr(imagenet, "IMAGES", {"train": 8, "test": 4})
    monkeypatch.setattr(ImageNetC, "classes", 2)
    folder = tmp_path / "fog" / "3"
    for k in range(4):
        draw(folder / f"n{2 - k % 2}" / f"ILSVRC2012_val_{k + 1:08}.JPEG", 224, 224)
    x, y, index = ImageNetC("fog", 3, str(tmp_path)).stacked("test")
    assert y.tolist() == [1, 0, 1, 0] and index.tolist() == [8, 9, 10, 11]
    assert torch.equal(x[2], as_tensor(folder / "n2" / "ILSVRC2012_val_00000003.JPEG"))
    with pytest.raises(ConfigError, match="severity: expected 1 to 5, got 6"):
        ImageNetC("fog", 6, str(tmp_path))
    with pytest.raises(ConfigError, match="a folder that holds snow, got"):
        ImageNetC("snow", 3, str(tmp_path)).split("test")
    (folder / "n2" / "ILSVRC2012_val_00000003.JPEG").rename(folder / "n2" / "three.JPEG")
    with pytest.raises(ConfigError, match=r"three.JPEG: expected names such as ILSVRC"):
        ImageNetC("fog", 3, str(tmp_path)).split("test")
    (folder / "n2" / "three.JPEG").unlink()
    with pytest.raises(ConfigError, match="expected 4 images, got 3; unpack it again"):
        ImageNetC("fog", 3, str(tmp_path)).split("test")


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3), (64, 64, 3)])
def test_medmnist_has_its_official_splits(shape: tuple[int, ...], tmp_path: Path) -> None:
    held: dict[str, np.ndarray] = {}
    for part, count in (("train", 9), ("val", 3), ("test", 6)):
        held[f"{part}_images"] = RANDOM.integers(0, 256, (count, *shape), dtype=np.uint8)
        held[f"{part}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
    np.savez_compressed(tmp_path / "pathmnist.npz", **held)
    data = MedMNIST(str(tmp_path / "pathmnist.npz"))
    sound(data, {"train": 9, "validation": 3, "test": 6})
    x, y, index = data.split("test")[1]
    pixels = torch.from_numpy(held["test_images"][1]) / 255
    assert torch.equal(x, pixels.permute(2, 0, 1) if pixels.dim() == 3 else pixels[None])
    assert (y, index, data.classes) == (1, 13, 3)
    held["test_labels"] = np.zeros((6, 14), np.uint8)
    np.savez(tmp_path / "chest.npz", **held)
    with pytest.raises(ConfigError, match="images with several labels at once"):
        MedMNIST(str(tmp_path / "chest.npz"))
    held["train_images"] = np.zeros((9, 28, 28, 28), np.uint8)
    np.savez(tmp_path / "organ3d.npz", **held)
    with pytest.raises(ConfigError, match="volumes are no images"):
        MedMNIST(str(tmp_path / "organ3d.npz"))
    np.savez(tmp_path / "x.npz", x=np.zeros(3))
    with pytest.raises(ConfigError, match=r"x.npz holds x; arrays train_images"):
        MedMNIST(str(tmp_path / "x.npz"))
    with pytest.raises(ConfigError, match="does not exist"):
        MedMNIST(str(tmp_path / "gone.npz"))


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_the_hubs_parquet_files(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    folder = tmp_path / "data"
    folder.mkdir()
    pixels = RANDOM.integers(0, 256, (26, 8, 8, 3), dtype=np.uint8)
    features = {
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
        "img": {"_type": "Image"},
    }
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])

    def write(name: str, rows: slice) -> None:
        images = [{"bytes": png(image), "path": None} for image in pixels[rows]]
        columns = {
            "img": pyarrow.array(images, kind),
            "label": pyarrow.array([k % 2 for k in range(len(images))], pyarrow.int64()),
        }
        table = pyarrow.table(columns).replace_schema_metadata(about)
        parquet.write_table(table, folder / name)

    write("train-00000-of-00002.parquet", slice(0, 10))
    write("train-00001-of-00002.parquet", slice(10, 20))
    write("test-00000-of-00001.parquet", slice(20, 26))
    data = Parquet(str(tmp_path))
    sound(data, {"train": 18, "validation": 2, "test": 6})
    assert data.labels == {"cat": 0, "dog": 1} and data.classes == 2
    x, y, index = data.split("test")[5]
    assert torch.equal(x, torch.from_numpy(pixels[25]).permute(2, 0, 1) / 255)
    assert (y, index) == (1, 25)
    assert Parquet(str(tmp_path), size=4, grey=True).shape == (1, 4, 4)
    with pytest.raises(ConfigError, match="got img, label; write `image:` and `label:`"):
        Parquet(str(tmp_path), label="fine_label")
    (folder / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConfigError, match="not whole parquet files of one kind"):
        Parquet(str(tmp_path))
    (folder / "test-00000-of-00001.parquet").rename(folder / "x.parquet")
    with pytest.raises(ConfigError, match="a name that begins with train, validation or test"):
        Parquet(str(tmp_path))


def test_parquet_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="expected a folder of parquet files, found none"):
        Parquet(str(tmp_path))
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'adpur\[parquet\]'"):
        Parquet(str(tmp_path))
