"""Weights folders of adpur's own diffusion network: NCSNpp with what its label means."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from adpur.errors import ConfigError
from adpur.models import files
from adpur.models.adapters import EDMDenoiser, EpsDenoiser
from adpur.models.denoiser import Denoiser
from adpur.models.ncsnpp import NCSNpp
from adpur.schedule import VE, LinearVP

SCHEDULE_FILE = "scheduler_config.json"


def save_ncsnpp(denoiser: Denoiser, folder: Path) -> None:
    """Write `config.json`, the schedule and the weights of an NCSNpp in one folder."""
    net, schedule = denoiser.net, denoiser.schedule
    if not isinstance(net, NCSNpp) or not isinstance(schedule, LinearVP | VE):
        raise ConfigError(
            "expected an NCSNpp on LinearVP (EpsDenoiser) or on VE (EDMDenoiser), got "
            f"{type(net).__name__} on {type(schedule).__name__}"
        )
    config = {"_class_name": "NCSNpp"} | net.arguments
    if isinstance(denoiser, EDMDenoiser):
        config["sigma_data"] = denoiser.sigma_data
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "config.json", config)
    told = {"_class_name": type(schedule).__name__} | asdict(schedule)
    files.write_json(folder / SCHEDULE_FILE, told)
    (folder / files.UNET_FILE).write_bytes(save(files.state_of(net)))


def load_ncsnpp(config: dict[str, Any], folder: Path) -> Denoiser:
    """The denoiser of a folder: eps-prediction on `LinearVP`, EDM's preconditioning on `VE`."""
    config = {k: v for k, v in config.items() if not k.startswith("_")}
    sigma_data = config.pop("sigma_data", None)
    net = build_ncsnpp(config, folder)
    schedule = _schedule(folder)
    files.load_into(net, folder / files.UNET_FILE)
    size = net.arguments["sample_size"]
    shape = (net.arguments["in_channels"], size, size)
    if isinstance(schedule, LinearVP):
        return EpsDenoiser(net, schedule, shape)
    if sigma_data is None:
        raise ConfigError(f"{folder / 'config.json'} lacks sigma_data, which a network on VE needs")
    return EDMDenoiser(net, shape, sigma_data, schedule.sigma_max)


def build_ncsnpp(arguments: dict[str, Any], where: Path | str = "the config") -> NCSNpp:
    """An untrained network from its constructor arguments."""
    try:
        return NCSNpp(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{where}: not an NCSNpp that can be built: {error}") from error


def _schedule(folder: Path) -> LinearVP | VE:
    file = folder / SCHEDULE_FILE
    if not file.is_file():
        raise ConfigError(
            f"{folder}: no {SCHEDULE_FILE} says what its time steps mean; "
            'write {"_class_name": "LinearVP"} or {"_class_name": "VE"} there'
        )
    told = files.read_json(file)
    known = {"LinearVP": LinearVP, "VE": VE}
    kind = known.get(told.pop("_class_name", None))
    try:
        if kind is not None:
            return kind(**told)
    except TypeError as error:
        raise ConfigError(f"{file}: {error}") from error
    raise ConfigError(f"{file}: expected _class_name LinearVP or VE")
