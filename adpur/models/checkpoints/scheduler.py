"""What a network's time steps mean, on disk: `scheduler_config.json`."""

import inspect
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import VE, DiscreteVP, LinearVP, NoiseSchedule, RectifiedFlow
from adpur.errors import ConfigError
from adpur.models.checkpoints.json_file import read_json, write_json

SCHEDULE_FILE = "scheduler_config.json"
CONTINUOUS: dict[str, type[LinearVP] | type[VE]] = {"LinearVP": LinearVP, "VE": VE}
"""adpur's own schedules, by the `_class_name` they are stored under."""
STAND_INS = {"DPMSolverSDEScheduler": "HeunDiscreteScheduler"}
"""A class that diffusers only has beside another package, and one with the same betas."""
STEPS = 1_000_000
"""More training times than any schedule has."""
ODD = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a constructor may answer to arguments of a wrong type."""
LABEL_SCALE = "label_scale"
"""The key of what a network's labels are multiplied with; absent where that is 1."""
LIMIT = "max_time"
"""The key of the largest time a network was trained on; absent for the schedule's end."""
OURS = {LIMIT, LABEL_SCALE}


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


def read_scheduler(file: Path) -> dict[str, Any]:
    """A scheduler config without adpur's own keys; a key that is `null` is absent.

    Raises:
        ConfigError: for a file that names no class: what its times mean would be guessed.
    """
    config = {
        k: v for k, v in read_json(file, finite=False).items() if v is not None and k not in OURS
    }
    if not isinstance(config.get("_class_name"), str):
        found = config.get("_class_name", "none")
        raise ConfigError(
            f"{file}: expected _class_name, the scheduler's class, found {found!r:.60}; write the "
            'class of the pipeline, such as "DDPMScheduler"'
        )
    return config


def has_betas(name: str) -> bool:
    """Whether a scheduler of diffusers runs on DDPM's betas, whatever it samples with.

    Read off its constructor, so that a class of another diffusers is judged by what it is.
    """
    arguments = _defaults(name)
    return "beta_schedule" in arguments and "snr_shift_scale" not in arguments


def load_betas(config: dict[str, Any], file: Path) -> DiscreteVP:
    """The betas of a scheduler config; what it leaves out is the default of its own class.

    Options that only choose where a sampler stops (Karras's and other sigmas, spacing, offsets,
    clipping) do not concern the network and are not read.
    """
    full = _defaults(config["_class_name"]) | config
    steps = _whole(full.get("num_train_timesteps"), "num_train_timesteps", file)
    kind, given = full["beta_schedule"], full.get("trained_betas")
    if full.get("rescale_betas_zero_snr"):
        betas = _betas_of(config, file)
    elif given is not None:
        betas = _numbers(given, file)
    elif kind == "linear" and "beta_start" in full:
        # in fp64 where we can: diffusers' own tables are fp32
        first, last = _numbers((full["beta_start"], full["beta_end"]), file)
        betas = np.linspace(float(first), float(last), steps)
    else:
        betas = _betas_of(config, file)
    if not (np.isfinite(betas).all() and (betas > 0).all() and (betas <= 1).all()):
        raise ConfigError(
            f"{file}: expected betas above 0 and at most 1, found {betas.min():g} to "
            f"{betas.max():g}"
        )
    return DiscreteVP(tuple(betas.tolist()))


def load_flow(config: dict[str, Any], file: Path) -> RectifiedFlow:
    """The straight path of a flow-matching scheduler; `shift` only moves where a sampler stops."""
    if config.get("invert_sigmas"):
        raise ConfigError(f"{file}: expected times that grow with the noise, found invert_sigmas")
    full = _defaults(config["_class_name"]) | config
    return RectifiedFlow(_whole(full["num_train_timesteps"], "num_train_timesteps", file))


def load_range(config: dict[str, Any], file: Path) -> dict[str, float]:
    """`sigma_min`, `sigma_max` and `sigma_data` of a scheduler of Karras et al. (2022)."""
    full = _defaults(config["_class_name"]) | config
    names = ("sigma_min", "sigma_max", "sigma_data")
    low, high, data = _numbers([full[name] for name in names], file).tolist()
    if not (0 < low < high and data > 0):
        raise ConfigError(
            f"{file}: expected 0 < sigma_min < sigma_max and sigma_data > 0, found {low:g}, "
            f"{high:g} and {data:g}"
        )
    return dict(zip(names, (low, high, data), strict=True))


def _defaults(name: str) -> dict[str, Any]:
    """The constructor's defaults of a scheduler of diffusers, {} where there is no such class."""
    import diffusers

    kind = getattr(diffusers, STAND_INS.get(name, name), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        return {}
    arguments = inspect.signature(kind).parameters.values()
    return {a.name: a.default for a in arguments if a.default is not a.empty}


def _betas_of(config: dict[str, Any], file: Path) -> Any:
    """The betas that the class itself makes of its config, in its fp32."""
    import diffusers

    name = config["_class_name"]
    kind: Any = getattr(diffusers, STAND_INS.get(name, name))
    try:
        with torch.device("cpu"):  # whatever device the network is built on
            return kind.from_config(config).betas.double().numpy()
    except ODD as error:
        told = " ".join(str(error).split())[:160]
        raise ConfigError(f"{file}: not a config of {name} ({told})") from error


def _whole(value: Any, name: str, file: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= STEPS:
        raise ConfigError(f"{file}: expected {name} in 1..{STEPS:,}, found {value!r:.60}")
    return value


def _numbers(values: Any, file: Path) -> Any:
    """Numbers as fp64; a list of anything else is refused."""
    given = list(values) if isinstance(values, list | tuple) else [values]
    odd = [v for v in given if not _finite(v)]
    if odd or not 1 <= len(given) <= STEPS:
        found = repr(odd[0])[:60] if odd else f"{len(given)} of them"
        raise ConfigError(f"{file}: expected betas and sigmas that are numbers, found {found}")
    return np.asarray(given, dtype=np.float64)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def load_continuous(config: dict[str, Any], file: Path) -> NoiseSchedule:
    """The `LinearVP` or `VE` that a config names."""
    arguments = {k: v for k, v in config.items() if k != "_class_name"}
    _numbers([0, *arguments.values()], file)
    try:
        return CONTINUOUS[config["_class_name"]](**arguments)
    except TypeError as error:
        raise ConfigError(f"{file}: {error}") from error


def load_own_schedule(file: Path) -> NoiseSchedule:
    """The schedule of one of adpur's networks: `LinearVP`, `VE`, or a `DDPMScheduler`'s betas."""
    config = read_scheduler(file)
    name = config["_class_name"]
    if name == "DDPMScheduler":
        return load_betas(config, file)
    if name not in CONTINUOUS:
        raise ConfigError(
            f"{file}: expected _class_name DDPMScheduler, {' or '.join(CONTINUOUS)}, found {name!r}"
        )
    return load_continuous(config, file)


def load_limit(file: Path, schedule: NoiseSchedule) -> float:
    """The largest time the network was trained on."""
    limit = read_json(file, finite=False).get(LIMIT, schedule.end)
    if not (_finite(limit) and 0 < limit <= schedule.end):
        raise ConfigError(
            f"{file}: expected {LIMIT} in 0..{schedule.end:g}, the times of the schedule, "
            f"found {limit!r}"
        )
    return limit


def load_label_scale(file: Path) -> float:
    """What the labels of its network are multiplied with (improved-diffusion: 1000 / T)."""
    scale = read_json(file, finite=False).get(LABEL_SCALE, 1.0)
    if not (_finite(scale) and scale > 0):
        raise ConfigError(f"{file}: expected {LABEL_SCALE} above 0, found {scale!r:.60}")
    return float(scale)


def save_schedule(denoiser: Denoiser, folder: Path, head: dict[str, Any]) -> None:
    """Write the schedule of a network and its trained times; `head` says what it predicts.

    A head that names a scheduler's class (`_class_name`) describes the schedule with it.
    """
    schedule = denoiser.schedule
    if "_class_name" in head:
        config = dict(head)
    elif isinstance(schedule, DiscreteVP):
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
    if (scale := getattr(denoiser.net, "label_scale", 1.0)) != 1:
        config[LABEL_SCALE] = scale
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
