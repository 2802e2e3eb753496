"""Weights on disk: folders of safetensors and JSON, read without ever running what they hold.

A diffusion folder is a diffusers pipeline (`unet/`, `scheduler/`), a bare `UNet2DModel` folder,
or a folder of one of adpur's own networks (`folder.py`); a classifier folder holds `config.json`
(architecture and normalisation) and `model.safetensors`.
"""

import difflib
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from adpur.diffusion.adapters import DiffusersNet, EpsDenoiser
from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import DiscreteVP
from adpur.errors import ConfigError
from adpur.models.checkpoints.files import (
    UNET_FILE,
    find_weights,
    load_into,
    read_json,
    state_of,
    write_json,
)
from adpur.models.checkpoints.folder import OWN, build_own, load_own, save_own
from adpur.models.checkpoints.heads import adapter_of, check_unet, head_of
from adpur.models.checkpoints.scheduler import (
    load_limit,
    load_schedule,
    save_schedule,
    scheduler_file,
)
from adpur.models.classifiers import CifarResNet, Classifier
from adpur.models.networks import Networks
from adpur.models.whitened import WhitenedConvNet
from adpur.models.wideresnet import WideResNet

OURS: dict[str, type[nn.Module]] = {
    "CifarResNet": CifarResNet,
    "WhitenedConvNet": WhitenedConvNet,
    "WideResNet": WideResNet,
}


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


def save_classifier(
    classifier: Classifier, init_args: dict[str, Any], folder: Path, half: bool = False
) -> None:
    """Write `config.json` and `model.safetensors`; `init_args` rebuild `classifier.net`.

    With `half`, parameters are stored in fp16; they are loaded as fp32.
    """
    config = {
        "architecture": type(classifier.net).__name__,
        "init_args": init_args,
        "shape": classifier.shape,
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    (folder / "model.safetensors").write_bytes(save(state_of(classifier.net, half)))


def build_classifier(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """An untrained network by name: one of adpur's (`OURS`), or any of timm's."""
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
    if config.get("_class_name") in OWN:
        return load_own(config, unet_folder)
    if config.get("_class_name") != "UNet2DModel":
        got, own = config.get("_class_name"), " or ".join(OWN)
        raise ConfigError(f"{unet_folder}: expected a diffusers UNet2DModel, {own}, found {got!r}")
    unet = build_unet({k: v for k, v in config.items() if not k.startswith("_")}, unet_folder)
    load_into(unet, unet_folder / UNET_FILE)
    check_unet(config, unet_folder)
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    shape = (config["in_channels"], height, width)
    file = scheduler_file(folder)
    scheduler = read_json(file)
    adapter = adapter_of(scheduler, file)
    denoiser = adapter(DiffusersNet(unet), load_schedule(file), shape)
    denoiser.max_time = load_limit(file, denoiser.schedule)
    return denoiser


def save_denoiser(denoiser: Denoiser, folder: Path, half: bool = False) -> None:
    """Write a weights folder: a diffusers pipeline, or the folder of one of adpur's own networks.

    A discrete schedule must be linear or is stored beta by beta.

    Args:
        denoiser: the network on its own schedule.
        folder: where to.
        half: store the parameters in fp16; they are loaded as fp32.
    """
    if type(denoiser.net).__name__ in OWN:
        return save_own(denoiser, folder, half)
    unet: Any = denoiser.net.unet  # type: ignore[union-attr]
    unet_config = {"_class_name": "UNet2DModel"} | {
        k: v for k, v in unet.config.items() if not k.startswith("_")
    }
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    write_json(folder / "unet" / "config.json", unet_config)
    save_schedule(denoiser, folder / "scheduler", head_of(denoiser))
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    write_json(folder / "model_index.json", index)
    (folder / "unet" / UNET_FILE).write_bytes(save(state_of(unet, half)))


def build_denoiser(
    architecture: str, arguments: dict[str, Any], where: Path | str = "the config"
) -> Denoiser:
    """An untrained eps-predicting denoiser on DDPM's schedule.

    Args:
        architecture: `UNet2DModel` of diffusers, or one of adpur's own networks.
        arguments: its constructor's arguments.
        where: they come from, for messages.
    """
    if architecture not in (*OWN, "UNet2DModel"):
        known = ", ".join(["UNet2DModel", *OWN])
        raise ConfigError(f"architecture: expected one of {known}, got {architecture!r}")
    if architecture != "UNet2DModel":
        net: Any = build_own(architecture, arguments, where)
        size = net.arguments["sample_size"]
        return EpsDenoiser(net, DiscreteVP(), (net.arguments["in_channels"], size, size))
    unet: Any = build_unet(arguments, where)
    size = arguments["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    shape = (arguments["in_channels"], height, width)
    return EpsDenoiser(DiffusersNet(unet), DiscreteVP(), shape)


def build_unet(config: dict[str, Any], where: Path | str = "the config") -> nn.Module:
    """An untrained diffusers `UNet2DModel` from its constructor arguments."""
    from diffusers import UNet2DModel

    try:
        return UNet2DModel(**config)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: not a UNet2DModel this diffusers can build: {error}"
        ) from error
