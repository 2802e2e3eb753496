"""Image files of every kind, and arrays of other machines, become the right pixels or one line."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from adpur import ConfigError, Folder, Given
from adpur.cli.commands.predict import outputs, read
from adpur.lit.data.archive import arrays
from adpur.lit.data.files import Decoder

RANDOM = np.random.default_rng(7)
DEEP = RANDOM.integers(0, 65_536, (3, 6, 8)).astype(np.uint16)
COLOUR = RANDOM.integers(0, 256, (6, 8, 3), dtype=np.uint8)


def png16(file: Path, pixels: np.ndarray, colour: int) -> None:
    """A PNG of 16 bits a channel, which PIL cannot write in colour."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    _, height, width = pixels.shape
    lines = b"".join(b"\0" + pixels[:, i].T.astype(">u2").tobytes() for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("grey.png", lambda file: png16(file, DEEP[:1], 0)),
        ("grey.tif", lambda file: Image.fromarray(DEEP[0]).save(file)),
        ("grey.pgm", lambda file: file.write_bytes(b"P5\n8 6\n65535\n" + DEEP[0].astype(">u2").tobytes())),
        ("colour.png", lambda file: png16(file, DEEP, 2)),
    ],
)  # fmt: skip
def test_16_bits_are_parts_of_65535(name: str, write: Callable, tmp_path: Path) -> None:
    write(tmp_path / name)
    grey = name.startswith("grey")
    found = Decoder(grey=grey)(tmp_path / name)
    assert np.abs(found.numpy() - DEEP[: len(found)] / 65_535).max() < 1e-6
    assert found.shape == (1 if grey else 3, 6, 8)
    assert torch.equal(read(tmp_path / name, (1 if grey else 3, 6, 8)), found)
    small = Decoder(4, 4, grey)(tmp_path / name)
    assert small.shape == (len(found), 4, 4) and 0 <= small.min() < small.max() < 1


def test_deep_alpha_shows_white(tmp_path: Path) -> None:
    png16(tmp_path / "x.png", DEEP[:2], 4)
    colour, alpha = DEEP[:2] / 65_535
    expected = colour * alpha + 1 - alpha
    assert np.abs(Decoder(grey=True)(tmp_path / "x.png").numpy()[0] - expected).max() < 1e-6


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".ppm", ".webp", ".PNG"])
def test_every_lossless_format_is_the_same_image(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / "a" / f"x{suffix}"
    file.parent.mkdir()
    Image.fromarray(COLOUR).save(file, **({"lossless": True} if suffix == ".webp" else {}))
    expected = torch.from_numpy(COLOUR).permute(2, 0, 1).float() / 255
    assert torch.equal(Folder(str(tmp_path)).stacked("test")[0][0], expected)
    assert torch.equal(read(file, (3, 6, 8)), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_photographs_are_turned_as_exif_says(orientation: int, deep: bool, tmp_path: Path) -> None:
    exif, file = Image.Exif(), tmp_path / "x.png"
    exif[0x0112] = orientation
    image = Image.fromarray(DEEP[0] if deep else COLOUR)
    image.save(file, exif=exif)
    right = np.asarray(ImageOps.exif_transpose(Image.open(file))).astype(np.float32)
    found = Decoder(grey=deep)(file).permute(1, 2, 0).numpy().reshape(right.shape)
    assert np.abs(found - right / (65_535 if deep else 255)).max() < 1e-6
    assert Decoder(grey=deep, upright=False)(file).shape[1:] == (6, 8)  # as published sets are read


def test_what_is_transparent_lies_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0] = (200, 100, 0, 255)
    pixels[1] = (200, 100, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = Decoder()(tmp_path / "x.png")
    assert (found[:, 0, 0] * 255).round().tolist() == [200, 100, 0]
    assert found[:, 1, 0].tolist() == [1, 1, 1]
    Image.fromarray(pixels[:1]).save(tmp_path / "opaque.png")
    assert (Decoder()(tmp_path / "opaque.png")[:, 0, 0] * 255).round().tolist() == [200, 100, 0]
    palette = Image.fromarray(pixels[..., :3]).convert("P")
    palette.save(tmp_path / "p.png")
    expected = np.asarray(palette.convert("RGB"))[0, 0].tolist()
    assert (Decoder()(tmp_path / "p.png")[:, 0, 0] * 255).round().tolist() == expected
    palette.save(tmp_path / "t.png", transparency=palette.getpixel((0, 0)))
    assert Decoder()(tmp_path / "t.png")[:, 0, 0].tolist() == [1, 1, 1]


def test_cmyk_and_two_tones_are_taken(tmp_path: Path) -> None:
    flat = Image.new("RGB", (8, 8), (200, 100, 50)).convert("CMYK")
    flat.save(tmp_path / "x.jpg", quality=100)
    found = Decoder()(tmp_path / "x.jpg").mean((1, 2)) * 255
    assert (found - torch.tensor([200.0, 100, 50])).abs().max() < 3
    Image.new("1", (4, 4), 1).save(tmp_path / "one.png")
    assert Decoder(grey=True)(tmp_path / "one.png").unique().tolist() == [1]


def test_pixels_of_unknown_scale_and_damaged_files_are_one_line(tmp_path: Path) -> None:
    Image.fromarray(DEEP[0].astype(np.int32)).save(tmp_path / "i.tif")
    Image.fromarray(9 * RANDOM.random((6, 8), dtype=np.float32)).save(tmp_path / "f.tif")
    png16(tmp_path / "cut.png", DEEP, 2)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:60])
    (tmp_path / "text.png").write_text("no image")
    for name, said in (
        ("i.tif", "integers of 32 bits, and not what white is"), ("f.tif", "floats beyond"),
        ("cut.png", "cannot be decoded"), ("text.png", "cannot be decoded"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said) as told:
            Decoder()(tmp_path / name)
        assert name in str(told.value) and "\n" not in str(told.value)


def test_hidden_files_and_folders_are_no_images(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/in/2.png", "b/1.png", ".cache/1.png", "a/.thumbs/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOUR).save(tmp_path / name)
    (tmp_path / "a" / "._1.png").write_bytes(b"\0\5\x16\7")
    data = Folder(str(tmp_path))
    assert data.names == ["a", "b"] and data.stacked("test")[1].tolist() == [0, 0, 1]


def test_folders_are_in_torchvisions_order(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    for name in ("b/10.png", "b/9.png", "b/in/1.png", "B/z.PNG", "a/x.jpeg", "a/in/deep/1.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(COLOUR).save(tmp_path / name)
    theirs, ours = ImageFolder(tmp_path), Folder(str(tmp_path))
    assert ours.names == theirs.classes
    assert ours.parts["test"].files == [file for file, _ in theirs.samples]
    assert ours.parts["test"].labels.tolist() == theirs.targets


def test_a_changed_folder_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for count in (1, 2):
        Image.fromarray(COLOUR).save(tmp_path / "a" / f"{count}.png")
        assert len(Folder(str(tmp_path)).stacked("test")[1]) == count


def test_two_inputs_are_never_one_output() -> None:
    assert outputs([Path("in/x.png"), Path("in/x.jpg")]) == ["x.png", "x.jpg.png"]
    for names in (["x.jpg", "x.jpg.png"], ["x.png", "X.png"]):
        with pytest.raises(ConfigError, match="would both be written to"):
            outputs([Path("in") / name for name in names])


@pytest.mark.parametrize("kind", [">f4", ">f8", ">u2", "<u2", "|u1", "<f2"])
def test_arrays_of_other_machines_and_types(kind: str, tmp_path: Path) -> None:
    white = {"u2": 65_535, "u1": 255}.get(kind[1:], 1)
    x = RANDOM.random((4, 1, 8, 8)) * white
    np.savez(tmp_path / "x.npz", x=x.astype(kind), y=np.arange(4).astype(">i2"))
    found, y, _ = Given(str(tmp_path / "x.npz")).stacked("test")
    assert np.abs(found.numpy() - x.astype(kind).astype(float) / white).max() < 1e-6
    assert y.tolist() == [0, 1, 2, 3]


def test_a_file_that_claims_terabytes_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 3, 32, 32), }".ljust(117)
    head = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + text.encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("x.npy", head + bytes(100))
        file.writestr("y.npy", bytes(8))
    with pytest.raises(
        ConfigError, match=r"x.npz: x claims float32 .*, 11.2 TiB, and holds 100 by"
    ):
        Given(str(tmp_path / "x.npz"))
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros((100, 3, 32, 32)), y=np.zeros(100, int))
    monkeypatch.setattr("adpur.lit.data.archive._memory", lambda: 2**20)
    with pytest.raises(ConfigError, match=r"takes 2.344 MiB, this machine has 1 MiB"):
        Given(str(tmp_path / "zeros.npz"))


def test_what_is_no_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_text("not a zip")
    np.savez(tmp_path / "o.npz", x=np.array([None, 1], object), y=np.arange(2))
    np.savez(tmp_path / "y.npz", y=np.arange(2))
    for name, said in (
        ("x.npz", "is not a .npz file of plain arrays"), ("o.npz", "is not a .npz file of plain"),
        ("y.npz", "holds y; arrays x and y are needed"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said) as told:
            arrays(tmp_path / name, ("x", "y"), "write it again")
        assert "\n" not in str(told.value)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    np.savez(tmp_path / "x.npz", x=np.zeros((2, 1, 8, 8)), y=np.arange(2))
    (tmp_path / "photos" / "a").mkdir(parents=True)
    Image.fromarray(COLOUR).save(tmp_path / "photos" / "a" / "1.png")
    assert os.fspath(Path("~/x.npz").expanduser()) == str(tmp_path / "x.npz")
    assert len(Given("~/x.npz").stacked("test")[1]) == 2
    assert len(Folder("~/photos").stacked("test")[1]) == 1


def test_a_flat_folder_is_for_fits_alone(tmp_path: Path) -> None:
    from adpur.lit.test.row import check_labels

    for k in range(20):
        Image.fromarray(COLOUR).save(tmp_path / f"{k:02}.png")
    data = Folder(str(tmp_path))
    assert data.classes == 0 and data.names == []
    assert len(data.stacked("train")[1]) == 18 and len(data.stacked("validation")[1]) == 2
    with pytest.raises(ConfigError, match="none for test"):
        data.split("test")
    with pytest.raises(ConfigError, match="have no labels"):
        check_labels(10, data)
