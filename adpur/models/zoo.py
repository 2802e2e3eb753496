"""Weights on disk: folders of safetensors and JSON, read without ever running what they hold.

A diffusion folder is a diffusers pipeline (`unet/`, `scheduler/`), a bare `UNet2DModel` folder,
or an `NCSNpp` folder (`folder.py`, written by `adpur convert`); a classifier folder holds
`config.json` (architecture and normalisation) and `model.safetensors`.
"""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

from adpur.errors import ConfigError
from adpur.models.adapters import DiffusersNet
from adpur.models.classifiers import CifarResNet, Classifier
from adpur.models.denoiser import Denoiser
from adpur.models.files import (
    UNET_FILE,
    find_weights,
    load_into,
    read_json,
    state_of,
    write_json,
)
from adpur.models.folder import load_ncsnpp, save_ncsnpp
from adpur.models.heads import adapter_of, check_unet, head_of
from adpur.models.ncsnpp import NCSNpp
from adpur.models.networks import Networks
from adpur.models.wideresnet import WideResNet
from adpur.schedule import DiscreteVP

OURS = {"CifarResNet": CifarResNet, "WideResNet": WideResNet}


def pretrained(classifier: str, denoiser: str | None = None, scorer: str | None = None) -> Networks:
    """Networks from weight folders, each found by `find_weights`."""
    return Networks(
        load_classifier(classifier),
        load_denoiser(denoiser) if denoiser else None,
        load_denoiser(scorer) if scorer else None,
    )


def load_classifier(folder: str | Path) -> Classifier:
    """The classifier of a folder written by `save_classifier`."""
    folder = find_weights(folder)
    config = read_json(folder / "config.json")
    if missing := {"architecture", "init_args", "shape", "mean", "std"} - config.keys():
        told = ", ".join(sorted(missing))
        raise ConfigError(f"{folder / 'config.json'} lacks {told}; write it with save_classifier")
    net = build_classifier(config["architecture"], config["init_args"])
    load_into(net, folder / "model.safetensors")
    return Classifier(net, tuple(config["shape"]), config["mean"], config["std"])


def save_classifier(classifier: Classifier, init_args: dict[str, Any], folder: Path) -> None:
    """Write `config.json` and `model.safetensors`; `init_args` rebuild `classifier.net`."""
    config = {
        "architecture": type(classifier.net).__name__,
        "init_args": init_args,
        "shape": classifier.shape,
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    (folder / "model.safetensors").write_bytes(save(state_of(classifier.net)))


def build_classifier(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """An untrained network by name: adpur's `CifarResNet` and `WideResNet`, or any of timm's."""
    import timm

    if arguments.get("pretrained"):
        raise ConfigError(
            "expected init_args without `pretrained`: weights come from model.safetensors, never "
            "from the network; leave the key out"
        )
    try:
        if architecture in OURS:
            return OURS[architecture](**arguments)
        if timm.is_model(architecture):
            return timm.create_model(architecture, **arguments)
    except TypeError as error:
        raise ConfigError(f"{architecture} cannot be built with {arguments}: {error}") from error
    near = difflib.get_close_matches(architecture, [*OURS, *timm.list_models()])
    raise ConfigError(
        f"unknown architecture {architecture!r}; nearest: {', '.join(near) or 'none'}"
    )


def load_denoiser(folder: str | Path) -> Denoiser:
    """The diffusion model of a diffusers folder; its scheduler says what it predicts, and when."""
    folder = find_weights(folder)
    unet_folder = folder / "unet" if (folder / "unet").is_dir() else folder
    config = read_json(unet_folder / "config.json")
    if config.get("_class_name") == "NCSNpp":
        return load_ncsnpp(config, unet_folder)
    if config.get("_class_name") != "UNet2DModel":
        got = config.get("_class_name")
        raise ConfigError(
            f"{unet_folder}: expected a diffusers UNet2DModel or an NCSNpp, found {got!r}"
        )
    unet = build_unet({k: v for k, v in config.items() if not k.startswith("_")}, unet_folder)
    load_into(unet, unet_folder / UNET_FILE)
    check_unet(config, unet_folder)
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    shape = (config["in_channels"], height, width)
    file = _scheduler_file(folder)
    adapter = adapter_of(read_json(file), file)
    return adapter(DiffusersNet(unet), _load_schedule(folder), shape)


def save_denoiser(denoiser: Denoiser, folder: Path) -> None:
    """Write a diffusers pipeline folder; the schedule must be linear or is stored beta by beta."""
    if isinstance(denoiser.net, NCSNpp):
        return save_ncsnpp(denoiser, folder)
    unet: Any = denoiser.net.unet  # type: ignore[union-attr]
    schedule = denoiser.schedule
    assert isinstance(schedule, DiscreteVP)
    unet_config = {"_class_name": "UNet2DModel"} | {
        k: v for k, v in unet.config.items() if not k.startswith("_")
    }
    for part, name, config in (
        ("unet", "config.json", unet_config),
        ("scheduler", "scheduler_config.json", _scheduler_config(schedule) | head_of(denoiser)),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        write_json(folder / part / name, config)
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    write_json(folder / "model_index.json", index)
    (folder / "unet" / UNET_FILE).write_bytes(save(state_of(unet)))


def build_unet(config: dict[str, Any], where: Path | str = "the config") -> nn.Module:
    """An untrained diffusers `UNet2DModel` from its constructor arguments."""
    from diffusers import UNet2DModel

    try:
        return UNet2DModel(**config)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: not a UNet2DModel this diffusers can build: {error}"
        ) from error


def _scheduler_file(folder: Path) -> Path:
    name = "scheduler_config.json"
    places = [folder / "scheduler" / name, folder / name, folder.parent / "scheduler" / name]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise ConfigError(
            f"{folder}: no {name} says what its time steps mean; "
            f"write one with diffusers' DDPMScheduler(...).save_config({str(folder)!r})"
        )
    return file


def _load_schedule(folder: Path) -> DiscreteVP:
    from diffusers import DDPMScheduler

    file = _scheduler_file(folder)
    config = read_json(file)
    if foreign := {"sigma_max", "beta_max"} & config.keys():
        raise ConfigError(
            f"{file}: expected a scheduler of discrete betas, found {', '.join(sorted(foreign))}"
        )
    kind, steps = config.get("beta_schedule", "linear"), config.get("num_train_timesteps", 1000)
    plain = not config.get("trained_betas") and not config.get("rescale_betas_zero_snr")
    if kind == "linear" and plain:
        # in fp64: diffusers' own table is fp32
        betas = np.linspace(config.get("beta_start", 1e-4), config.get("beta_end", 0.02), steps)
    else:
        with torch.device("cpu"):  # whatever device the network is built on
            betas = DDPMScheduler.from_config(config).betas.double().numpy()
    return DiscreteVP(tuple(betas.tolist()))


def _scheduler_config(schedule: DiscreteVP) -> dict[str, Any]:
    config: dict[str, Any] = {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": schedule.end,
        "clip_sample": False,
    }
    first, last = schedule.betas[0], schedule.betas[-1]
    if np.allclose(np.linspace(first, last, schedule.end), schedule.betas, rtol=0, atol=1e-15):
        return config | {"beta_schedule": "linear", "beta_start": first, "beta_end": last}
    return config | {"trained_betas": list(schedule.betas)}
