"""`adpur predict -c CONFIG IN OUT`: purify a folder of images into another."""

import csv
import hashlib
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchvision.io import write_png

from adpur.cli.run import parse_model
from adpur.defense.defense import Defense
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise
from adpur.lit.data.decode import SUFFIXES, is_image
from adpur.lit.data.files import Decoder
from adpur.lit.data.paths import expanded


def main(argv: Sequence[str]) -> int:
    """Write a purified PNG for every image, and the predicted class of each beside them."""
    parser = ArgumentParser("adpur predict", description=__doc__)
    parser.add_argument("source", type=expanded, help="a folder of images")
    parser.add_argument("target", type=expanded, help="where to write purified PNGs")
    parser.add_argument("-c", "--config", default="ssni_digits", help="a test config")
    parser.add_argument("--row", help="the defence of that config (default: its last)")
    parser.add_argument("--batch", type=int, default=64, help="images in memory at a time")
    args = parser.parse_args(argv)
    if args.batch < 1:
        raise ConfigError(f"--batch: expected 1 or more images at a time, got {args.batch}")
    files = images_of(args.source)
    written = outputs(files)
    if args.target.resolve() == args.source.resolve():
        raise ConfigError(f"{args.target} is the source; purified images need another folder")
    module = parse_model(args.config)
    row = args.row or list(module.rows)[-1]
    if row not in module.rows:
        raise ConfigError(f"no row {row!r} in {args.config}; there is: {', '.join(module.rows)}")
    args.target.mkdir(parents=True, exist_ok=True)
    told = args.target / "predictions.csv"
    with told.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "class", "level"])
        for start in range(0, len(files), args.batch):
            part = files[start : start + args.batch]
            names = [args.target / name for name in written[start : start + args.batch]]
            writer.writerows(purify(module.defenses[row], part, names, module.seed))
            done = min(start + args.batch, len(files))
            print(f"{done}/{len(files)} purified by {row}", flush=True)
    print(f"images: {args.target}   classes: {told}")
    return 0


def images_of(source: Path) -> list[Path]:
    """Image files of a folder, sorted."""
    if not source.is_dir():
        raise ConfigError(f"{source} is not a folder of images")
    files = sorted(file for file in source.iterdir() if is_image(file) and file.is_file())
    if not files:
        raise ConfigError(f"{source} holds no images ({', '.join(SUFFIXES)})")
    return files


def outputs(files: Sequence[Path]) -> list[str]:
    """What each purified image is called: `x.png` of `x.png`, `x.jpg.png` of `x.jpg`.

    Raises:
        ConfigError: where two would be one file; disks of macOS and Windows ignore case.
    """
    names = [file.name if file.suffix == ".png" else f"{file.name}.png" for file in files]
    first: dict[str, Path] = {}
    for file, name in zip(files, names, strict=True):
        if (other := first.setdefault(name.lower(), file)) is not file:
            raise ConfigError(
                f"{other.name} and {file.name} of {file.parent} would both be written to {name}; "
                "rename one"
            )
    return names


def purify(defense: Defense, files: list[Path], targets: list[Path], seed: int) -> list[list[str]]:
    """Purify some files into others; returns their lines of the CSV.

    Noise is keyed by a file's content, so a result depends on no other file.
    """
    shape = defense.networks.shape
    x = torch.stack([read(file, shape) for file in files])
    keys = [int(hashlib.sha256(file.read_bytes()).hexdigest()[:8], 16) for file in files]
    with torch.no_grad():
        out = defense(x, Noise(torch.tensor(keys), seed))
    lines = []
    for file, target, image, logits, level in zip(
        files, targets, out.image, out.logits, out.snapped, strict=True
    ):
        write_png((image.clamp(0, 1) * 255).round().byte(), str(target))
        told = "/".join(f"{t:g}" for t in level.tolist())
        lines.append([file.name, str(int(logits.argmax())), told])
    return lines


def read(file: Path, shape: tuple[int, ...] | None) -> Tensor:
    """An image in [0, 1], or an error that names the file and both shapes."""
    image = Decoder(grey=shape is not None and shape[0] == 1)(file)
    if shape is not None and tuple(image.shape) != shape:
        raise ConfigError(
            f"{file}: expected an image of {shape} (C, H, W), got {tuple(image.shape)}"
        )
    return image
