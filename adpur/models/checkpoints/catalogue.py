"""Public checkpoints the papers use: where each comes from, its licence, and how adpur reads it.

Nothing here is fetched unasked (`adpur fetch`). A checksum is written down only where a copy was
hashed, an accuracy only where a source states it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

UNKNOWN = "unknown"
CONVERT = "adpur convert FILE FOLDER"
NORMALISED = f"{CONVERT} --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225"


@dataclass(frozen=True)
class Checkpoint:
    """One public checkpoint.

    Attributes:
        name: adpur's short name for it.
        source: who published it, and under which model id or path.
        file: its file name there.
        licence: of the weights; where only the code states one, that is said.
        use: the command that makes a folder of it, or how the folder is used as it is.
        sha256: of the file, `unknown` where no copy was seen.
        accuracy: clean accuracy with its source, for classifiers.
        repo: its repository on Hugging Face; empty where it is published elsewhere, and then
            `adpur fetch` wants the address (`--url`).
        files: what to fetch of that repository.
        revision: of that repository; `adpur fetch` records the commit it stood for.
        config: `config.json` to write beside them, for a network whose repository has none of ours.
        mean, std: what a classifier's images are normalised with, where its file does not say.
    """

    name: str
    source: str
    file: str
    licence: str
    use: str = CONVERT
    sha256: str = UNKNOWN
    accuracy: str = ""
    repo: str = ""
    files: tuple[str, ...] = ()
    revision: str = "main"
    config: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's."""


def _timm(architecture: str, called: str, accuracy: str = "") -> Checkpoint:
    """Torchvision's first ImageNet classifier of an architecture, as timm publishes it."""
    config = (
        f'{{"architecture": "{architecture}", "init_args": {{"num_classes": 1000}}, "shape": '
        '[3, 224, 224], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}'
    )
    return Checkpoint(
        f"{architecture.replace('_', '-')}-imagenet",
        f"timm/{architecture}.tv_in1k on Hugging Face: torchvision's first {called}, 3x224x224",
        "model.safetensors",
        "BSD-3-Clause",
        f"adpur fetch, or put beside it config.json: {config}",
        repo=f"timm/{architecture}.tv_in1k",
        files=("model.safetensors",),
        config=config,
        accuracy=accuracy,
    )


KNOWN = (
    Checkpoint(
        "ddpm-cifar10",
        "google/ddpm-cifar10-32 on Hugging Face: DDPM, 3x32x32",
        "diffusion_pytorch_model.safetensors",
        "Apache-2.0",
        "keep it beside its config.json and scheduler_config.json; name the folder as `denoiser`",
        repo="google/ddpm-cifar10-32",
        files=("config.json", "scheduler_config.json", "diffusion_pytorch_model.safetensors"),
    ),
    Checkpoint(
        "score-sde-cifar10",
        "yang-song/score_sde_pytorch on GitHub, vp/cifar10_ddpmpp_deep_continuous: DDPM++, 3x32x32",
        "checkpoint_8.pth",
        "Apache-2.0 (the code)",
    ),
    Checkpoint(
        "edm-cifar10-vp",
        "NVlabs/edm on GitHub, pretrained: DDPM++, unconditional, 3x32x32",
        "edm-cifar10-32x32-uncond-vp.pkl",
        "CC BY-NC-SA 4.0",
    ),
    Checkpoint(
        "edm-cifar10-ve",
        "NVlabs/edm on GitHub, pretrained: NCSN++, unconditional, 3x32x32",
        "edm-cifar10-32x32-uncond-ve.pkl",
        "CC BY-NC-SA 4.0",
    ),
    Checkpoint(
        "guided-imagenet256",
        "openai/guided-diffusion on GitHub, jul-2021: unconditional, 3x256x256",
        "256x256_diffusion_uncond.pt",
        "MIT (the code)",
    ),
    Checkpoint(
        "wrn-28-10-cifar10",
        "RobustBench on GitHub, cifar10/Linf/Standard: WideResNet-28-10 on images in [0, 1]",
        "Standard.pt",
        "MIT (the code)",
        f"{CONVERT} --mean 0 --std 1",
        accuracy="94.78 (RobustBench)",
        mean=(0.0,),
        std=(1.0,),
    ),
    Checkpoint(
        "resnet20-cifar10",
        "akamaster's CIFAR-10 ResNets on GitHub: option A, ImageNet's mean and std",
        "resnet20-12fca82f.th",
        "BSD-2-Clause",
        NORMALISED,
        sha256="12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        accuracy="91.73 (its authors)",
        mean=MEAN,
        std=STD,
    ),
    Checkpoint(
        "resnet56-cifar10",
        "akamaster's CIFAR-10 ResNets on GitHub: option A, ImageNet's mean and std",
        "resnet56-4bfd9763.th",
        "BSD-2-Clause",
        NORMALISED,
        sha256="4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        accuracy="93.39 (its authors)",
        mean=MEAN,
        std=STD,
    ),
    _timm("resnet50", "ResNet-50", "76.15 (ScoreOpt, Table 13)"),
    _timm("resnet152", "ResNet-152"),
    _timm("wide_resnet50_2", "WideResNet-50-2", "78.48 (ScoreOpt, Table 13)"),
)
"""In the order the papers are read: diffusion models, then classifiers."""


def sha256(file: Path) -> str:
    """The file's sha256, read in pieces."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def named(file: Path) -> Iterator[Checkpoint]:
    """Known checkpoints published under this file name; a name alone proves nothing."""
    return (known for known in KNOWN if known.file == file.name)


def called(name: str) -> Checkpoint | None:
    """The known checkpoint of adpur's short name."""
    return next((known for known in KNOWN if known.name == name), None)


def hashed(digest: str) -> Checkpoint | None:
    """The known checkpoint of this sha256."""
    return next((known for known in KNOWN if known.sha256 == digest), None)
