"""What makes a run's numbers what they are, and what its networks are called."""

from typing import Any

import torch

import adpur
from adpur.defense.defense import Defense
from adpur.lit.data.base import ImageData
from adpur.models.checkpoints.fingerprint import architecture, fingerprint
from adpur.models.networks import Networks


def of_data(data: ImageData) -> dict[str, Any]:
    """The images, whatever loads them."""
    return {
        "class": type(data).__name__,
        "split": data.evaluate,
        "images": len(data.subset),
        "classes": data.classes,
        "sha256": data.digest(),
    }


def of_arithmetic() -> dict[str, Any]:
    """What decides last bits besides the device and R."""
    return {
        "dtype": "float32",
        "matmul": torch.get_float32_matmul_precision(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
    }


def of_versions() -> dict[str, str]:
    """Of adpur and torch."""
    return {"adpur": adpur.__version__, "torch": torch.__version__}


def of_networks(networks: Networks) -> dict[str, str]:
    """A fingerprint of each part."""
    return {name: fingerprint(part) for name, part in networks.named_children()}


def architectures(defenses: dict[str, Defense]) -> dict[str, Any]:
    """What the networks of each row are called; their fingerprints are what counts."""
    parts = {name: defense.networks.named_children() for name, defense in defenses.items()}
    return {
        name: {part.lstrip("_"): architecture(net) for part, net in found}
        for name, found in parts.items()
    }
