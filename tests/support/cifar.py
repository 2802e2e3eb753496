"""Tiny networks in the place of CIFAR-10's."""

from pathlib import Path

from unet import UNET

from adpur import (
    CifarResNet,
    Classifier,
    DiscreteVP,
    EpsDenoiser,
    Reference,
    save_classifier,
    save_denoiser,
)
from adpur.diffusion.adapters import DiffusersNet
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.models.checkpoints.zoo import build_unet
from adpur.purify.levels.reference import save_reference


def tiny_cifar_weights(folder: Path) -> None:
    """What classifier_cifar10_full, diffusion_cifar10_full and addt_cifar10_full would write, at 3x32x32."""
    arguments = {"blocks": 1}
    classifier = Classifier(CifarResNet(**arguments), (3, 32, 32), [0.5] * 3, [0.5] * 3)
    save_classifier(classifier, arguments, folder / "classifier")
    unet = build_unet(UNET | {"sample_size": 32, "in_channels": 3, "out_channels": 3})
    denoiser = EpsDenoiser(DiffusersNet(unet), DiscreteVP(), (3, 32, 32)).eval()
    for name in ("diffusion", "addt"):
        save_denoiser(denoiser, folder / name)
        for levels in (5, 20):
            norms = Reference(30, 8, 20, 45, count=9, horizon=20, levels=levels,
                              scorer=fingerprint(denoiser))  # fmt: skip
            save_reference(norms, folder / name)
