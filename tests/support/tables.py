"""Tiny networks and images in the place of those the papers' tables want."""

import hashlib
import itertools
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torchvision.datasets import CIFAR10
from unet import UNET

from adpur import (
    CifarResNet,
    Classifier,
    DiscreteVP,
    EDMDenoiser,
    EpsDenoiser,
    LinearVP,
    NCSNpp,
    Reference,
    save_classifier,
    save_denoiser,
)
from adpur.diffusion.adapters import DiffusersNet
from adpur.lit.data import published
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.models.checkpoints.zoo import build_unet
from adpur.papers.reproduce import Table
from adpur.purify.levels.reference import save_reference

CLASSIFIERS = ("wrn", "wide", "resnet", "vgg", "vit")


def stand_in(name: str, folder: Path) -> None:
    """A tiny network of the prediction, schedule and shape of the real one of this name."""
    torch.manual_seed(0)
    side, classes = (32, 100) if "cifar100" in name else (32, 10)
    if "imagenet" in name:
        side, classes = (64, 200) if "tiny" in name else (224, 1000)
    if Path(name).name.startswith(CLASSIFIERS):
        arguments = {"blocks": 1, "classes": classes}
        net = Classifier(CifarResNet(**arguments), (3, side, side), [0.5] * 3, [0.5] * 3)
        save_classifier(net, arguments, folder)
        return
    denoiser = _denoiser(Path(name).name, 256 if side == 224 else side)
    save_denoiser(denoiser, folder)
    scorer = fingerprint(denoiser)
    kinds = [(20, 1, False, True), (20, 20, False, True)]
    released = [(20, 1, True, False), (20, 20, True, True), (50, 50, True, True)]
    for horizon, levels, continuous, noised in kinds + released:
        save_reference(
            Reference(30, 8, 20, 45, 9, horizon, levels, scorer, continuous, noised), folder
        )


def _denoiser(name: str, side: int) -> Any:
    shape = (3, side, side)
    if name.startswith(("score-sde", "ddpmpp", "edm")):
        net = NCSNpp(side, channels=8, channel_mult=(1, 1), num_blocks=1, attn_resolutions=())
        edm = name.startswith("edm")
        return (EDMDenoiser(net, shape) if edm else EpsDenoiser(net, LinearVP(), shape)).eval()
    unet = build_unet(UNET | {"sample_size": side, "in_channels": 3, "out_channels": 3})
    return EpsDenoiser(DiffusersNet(unet), DiscreteVP(), shape).eval()


def tiny_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch, images: int = 20) -> None:
    """The official layout with few images, its checksums told to torchvision."""
    inner = folder / "cifar-10-batches-py"
    inner.mkdir()

    def write(name: str, content: object) -> str:
        (inner / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((inner / name).read_bytes()).hexdigest()

    pixels = np.random.default_rng(3).integers(0, 256, (images, 3072), dtype=np.uint8)
    part = {"data": pixels, "labels": [k % 10 for k in range(images)]}
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", write("data_batch_1", part)]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", part)]])
    names = {"label_names": list("abcdefghij")}
    meta = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", names)}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    monkeypatch.setattr(published, "VALIDATION", 10)
    monkeypatch.setenv("ADPUR_CIFAR10", str(folder))


def parts(tree: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a config."""
    if isinstance(tree, dict):
        yield tree
    for child in (
        tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    ):
        yield from parts(child)


def read(table: Table) -> Any:
    return yaml.load(table.file.read_text(), yaml.CSafeLoader)  # ten times as fast


def rows(content: Any) -> set[str]:
    """The rows of a config as its own `vary` names them."""
    vary = content.get("vary", {})
    named = set(content["model"]["init_args"]["defenses"]) - set(vary)
    for row, settings in vary.items():
        for chosen in itertools.product(*settings.values()):
            told = zip(settings, chosen, strict=True)
            named.add(" ".join([row, *(f"{name.split('.')[-1]}={value}" for name, value in told)]))
    return named
