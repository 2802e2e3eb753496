"""What a diffusers network predicts, between its config files and adpur's adapters."""

from pathlib import Path
from typing import Any

from adpur.diffusion.adapters import EpsDenoiser, NetDenoiser, VDenoiser, X0Denoiser
from adpur.diffusion.denoiser import Denoiser
from adpur.errors import ConfigError

ADAPTERS: dict[str, type[NetDenoiser]] = {
    "epsilon": EpsDenoiser,
    "v_prediction": VDenoiser,
    "sample": X0Denoiser,
}
"""A scheduler's `prediction_type`, and what brings such a network to x0_hat."""


def adapter_of(scheduler: dict[str, Any], file: Path) -> type[NetDenoiser]:
    """The adapter for the network beside a scheduler config; diffusers' default is epsilon."""
    kind = scheduler.get("prediction_type", "epsilon")
    if kind not in ADAPTERS:
        told = ", ".join(ADAPTERS)
        raise ConfigError(f"{file}: expected prediction_type one of {told}, found {kind!r}")
    return ADAPTERS[kind]


def head_of(denoiser: Denoiser) -> dict[str, Any]:
    """The scheduler's words for a denoiser's head: what it predicts, and whether its variance."""
    kind = next((name for name, adapter in ADAPTERS.items() if type(denoiser) is adapter), None)
    if kind is None:
        told = ", ".join(adapter.__name__ for adapter in ADAPTERS.values())
        raise ConfigError(f"expected one of {told} to save, got {type(denoiser).__name__}")
    unet: Any = denoiser.net.unet  # type: ignore[union-attr]
    variance = {"variance_type": "learned_range"} if learns_variance(unet.config) else {}
    return {"prediction_type": kind, **variance}


def learns_variance(unet: dict[str, Any]) -> bool:
    """Whether half of the output channels are a variance (Nichol & Dhariwal 2021, Eq. 15)."""
    return bool(unet["out_channels"] == 2 * unet["in_channels"])


def check_unet(unet: dict[str, Any], where: Path) -> None:
    """Refuse class labels, and outputs other than a prediction alone or with its variance."""
    if unet.get("num_class_embeds") or unet.get("class_embed_type"):
        raise ConfigError(f"{where}: expected an unconditional UNet2DModel, found class labels")
    inner, outer = unet.get("in_channels", 3), unet.get("out_channels", 3)
    if outer not in (inner, 2 * inner):
        raise ConfigError(
            f"{where}: expected out_channels {inner}, or {2 * inner} with a learned variance, "
            f"found {outer}"
        )
