"""Data sets of image files in their true layouts: what is decoded, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import as_tensor, draw, sound
from PIL import Image

from adpur import ConfigError, Folder, ImageNet, TinyImageNet
from adpur.lit.data import imagenet, published, tiny_imagenet


def forget() -> None:
    """The files have changed within this process."""
    for reader in (tiny_imagenet._train, tiny_imagenet._test):
        reader.cache_clear()


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
