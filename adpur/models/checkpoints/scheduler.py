"""What a network's time steps mean, on disk: `scheduler_config.json`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import VE, DiscreteVP, LinearVP, NoiseSchedule
from adpur.errors import ConfigError
from adpur.models.checkpoints.files import read_json, write_json

SCHEDULE_FILE = "scheduler_config.json"
CONTINUOUS: dict[str, type[LinearVP] | type[VE]] = {"LinearVP": LinearVP, "VE": VE}
"""adpur's own schedules, by the `_class_name` they are stored under."""
LIMIT = "max_time"
"""The key of the largest time a network was trained on; absent where that is the schedule's end."""


def scheduler_file(folder: Path) -> Path:
    """The scheduler config of a weights folder, in it, beside it or in `scheduler/`."""
    name = SCHEDULE_FILE
    places = [folder / "scheduler" / name, folder / name, folder.parent / "scheduler" / name]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise ConfigError(
            f"{folder}: no {name} says what its time steps mean; "
            f"write one with diffusers' DDPMScheduler(...).save_config({str(folder)!r}), or, for a "
            'continuous schedule, {"_class_name": "LinearVP"} or {"_class_name": "VE"}'
        )
    return file


def load_schedule(file: Path) -> DiscreteVP:
    """The discrete betas of a diffusers scheduler config."""
    from diffusers import DDPMScheduler

    config = read_json(file)
    config.pop(LIMIT, None)
    if foreign := {"sigma_max", "beta_max"} & config.keys():
        raise ConfigError(
            f"{file}: expected a scheduler of discrete betas, found {', '.join(sorted(foreign))}"
        )
    kind, steps = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", 1000)
    # in fp64 where we can: diffusers' own tables are fp32
    if config.get("rescale_betas_zero_snr"):
        kind = "rescaled"
    if (given := config.get("trained_betas")) and kind != "rescaled":
        betas = np.asarray(given, dtype=np.float64)
    elif kind == "linear":
        betas = np.linspace(config.get("beta_start", 1e-4), config.get("beta_end", 0.02), steps)
    else:
        with torch.device("cpu"):  # whatever device the network is built on
            betas = DDPMScheduler.from_config(config).betas.double().numpy()
    return DiscreteVP(tuple(betas.tolist()))


def load_any_schedule(file: Path) -> NoiseSchedule:
    """The `LinearVP` or `VE` that a config names, or the discrete betas of a `DDPMScheduler`."""
    config = read_json(file)
    config.pop(LIMIT, None)
    name = config.pop("_class_name", None)
    if name == "DDPMScheduler":
        return load_schedule(file)
    if name not in CONTINUOUS:
        raise ConfigError(
            f"{file}: expected _class_name DDPMScheduler, {' or '.join(CONTINUOUS)}, found {name!r}"
        )
    try:
        return CONTINUOUS[name](**config)
    except TypeError as error:
        raise ConfigError(f"{file}: {error}") from error


def load_limit(file: Path, schedule: NoiseSchedule) -> float:
    """The largest time the network was trained on."""
    limit = read_json(file).get(LIMIT, schedule.end)
    if not isinstance(limit, int | float) or not 0 < limit <= schedule.end:
        raise ConfigError(
            f"{file}: expected {LIMIT} in 0..{schedule.end:g}, the times of the schedule, "
            f"found {limit!r}"
        )
    return limit


def save_schedule(denoiser: Denoiser, folder: Path, head: dict[str, Any]) -> None:
    """Write the schedule of a network and its trained times; `head` says what it predicts."""
    schedule = denoiser.schedule
    if isinstance(schedule, DiscreteVP):
        config = _discrete(schedule) | head
    elif isinstance(schedule, LinearVP | VE):
        config = {"_class_name": type(schedule).__name__} | asdict(schedule)
    else:
        raise ConfigError(
            "expected a network on DiscreteVP, LinearVP or VE, got one on "
            f"{type(schedule).__name__}; save the network that it wraps"
        )
    if denoiser.max_time < schedule.end:
        config[LIMIT] = denoiser.max_time
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SCHEDULE_FILE, config)


def _discrete(schedule: DiscreteVP) -> dict[str, Any]:
    config: dict[str, Any] = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.end,
        "clip_sample": False,
    }
    first, last = schedule.betas[0], schedule.betas[-1]
    if np.allclose(np.linspace(first, last, schedule.end), schedule.betas, rtol=0, atol=1e-15):
        return config | {"beta_schedule": "linear", "beta_start": first, "beta_end": last}
    return config | {"trained_betas": list(schedule.betas)}
