"""What makes a run's numbers what they are, and what its networks are called."""

from typing import Any

import torch

import adpur
from adpur.defense.defense import Defense
from adpur.judging.arithmetic import in_use
from adpur.lit.data.base import ImageData
from adpur.models.checkpoints.fingerprint import architecture, fingerprint, legacy_fingerprint
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


def of_session(defenses: dict[str, Defense], device: torch.device) -> dict[str, Any]:
    """On whose arithmetic a process computes, and with which versions."""
    nets = [defense.networks for defense in defenses.values()]
    return {"arithmetic": in_use(device, nets), "versions": of_versions()}


def of_versions() -> dict[str, str]:
    """Of adpur and torch."""
    return {"adpur": adpur.__version__, "torch": torch.__version__}


def of_networks(networks: Networks) -> dict[str, str]:
    """A fingerprint of each part."""
    return {name: fingerprint(part) for name, part in networks.named_children()}


def older_prints(defenses: dict[str, Defense]) -> dict[str, str]:
    """The fingerprint that adpur 0.1.0 gave each network, by today's."""
    parts = {net for d in defenses.values() for net in d.networks.children()}
    return {fingerprint(net): legacy_fingerprint(net) for net in parts}


def architectures(defenses: dict[str, Defense]) -> dict[str, Any]:
    """What the networks of each row are called; their fingerprints are what counts."""
    parts = {name: defense.networks.named_children() for name, defense in defenses.items()}
    return {
        name: {part.lstrip("_"): architecture(net) for part, net in found}
        for name, found in parts.items()
    }
