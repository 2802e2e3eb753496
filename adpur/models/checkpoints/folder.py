"""Weights folders of adpur's own diffusion networks, with what their label means."""

from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from adpur.diffusion.adapters import EDMDenoiser, EpsDenoiser
from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import VE, DiscreteVP, LinearVP
from adpur.errors import ConfigError
from adpur.models.checkpoints import files
from adpur.models.checkpoints.json_file import write_json
from adpur.models.checkpoints.scheduler import (
    ODD,
    load_limit,
    load_own_schedule,
    save_schedule,
    scheduler_file,
)
from adpur.models.lean import LeanUNet
from adpur.models.ncsnpp import NCSNpp

OWN: dict[str, type[nn.Module]] = {"LeanUNet": LeanUNet, "NCSNpp": NCSNpp}
"""Networks `net(x, label)` that rebuild from their `arguments`, by the name they are stored as."""


def save_own(denoiser: Denoiser, folder: Path, half: bool = False) -> None:
    """Write `config.json`, the schedule and the weights of one of adpur's networks in one folder.

    With `half`, parameters are stored in fp16; they are loaded as fp32.
    """
    net: Any = denoiser.net
    kind, schedule = type(net).__name__, denoiser.schedule
    eps = type(denoiser) is EpsDenoiser and isinstance(schedule, DiscreteVP | LinearVP)
    edm = isinstance(denoiser, EDMDenoiser) and isinstance(schedule, VE)
    if kind not in OWN or not (eps or edm):
        raise ConfigError(
            f"expected {' or '.join(OWN)} on DiscreteVP or LinearVP (EpsDenoiser), or on VE "
            f"(EDMDenoiser), got {kind} on {type(schedule).__name__} ({type(denoiser).__name__})"
        )
    config = {"_class_name": kind} | net.arguments
    if isinstance(denoiser, EDMDenoiser):
        config["sigma_data"] = denoiser.sigma_data
    save_schedule(denoiser, folder, {"prediction_type": "epsilon"} if eps else {})
    write_json(folder / "config.json", config)
    (folder / files.UNET_FILE).write_bytes(save(files.state_of(net, half)))


def load_own(config: dict[str, Any], folder: Path) -> Denoiser:
    """The denoiser of a folder: eps-prediction on VP schedules, EDM's preconditioning on `VE`."""
    arguments = {k: v for k, v in config.items() if not k.startswith("_")}
    sigma_data = arguments.pop("sigma_data", None)
    file = scheduler_file(folder)
    schedule = load_own_schedule(file)

    def build() -> nn.Module:
        return build_own(config["_class_name"], arguments, folder)

    net = files.filled(build, folder / files.UNET_FILE, arguments)
    denoiser = _denoiser(net, schedule, sigma_data, folder)
    denoiser.max_time = load_limit(file, schedule)
    return denoiser


def build_own(kind: str, arguments: dict[str, Any], where: Path | str = "the config") -> nn.Module:
    """An untrained network from its name and its constructor's arguments."""
    try:
        return OWN[kind](**arguments)
    except ConfigError as error:
        raise ConfigError(
            str(error) if str(where) in str(error) else f"{where}: {error}"
        ) from error
    except ODD as error:
        article = "an" if kind == "NCSNpp" else "a"
        told = " ".join(str(error).split())[:200]
        raise ConfigError(f"{where}: not {article} {kind} that can be built: {told}") from error


def _denoiser(net: Any, schedule: Any, sigma_data: float | None, folder: Path) -> Denoiser:
    size = net.arguments["sample_size"]
    shape = (net.arguments["in_channels"], size, size)
    if not isinstance(schedule, VE):
        return EpsDenoiser(net, schedule, shape)
    if sigma_data is None:
        raise ConfigError(f"{folder / 'config.json'} lacks sigma_data, which a network on VE needs")
    if not isinstance(sigma_data, int | float) or not sigma_data > 0:
        raise ConfigError(
            f"{folder / 'config.json'}: expected sigma_data above 0, found {sigma_data!r:.40}"
        )
    return EDMDenoiser(net, shape, sigma_data, schedule.sigma_max)
