"""Weights on disk: folders of safetensors and JSON, read without ever running what they hold.

A diffusion folder is a diffusers pipeline (`unet/`, `scheduler/`), a bare `UNet2DModel` folder,
or a folder of one of adpur's own networks (`folder.py`); a classifier folder holds `config.json`
(architecture and normalisation) and `model.safetensors`.
"""

import difflib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from adpur.diffusion.adapters import DiffusersNet, EpsDenoiser
from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import DiscreteVP
from adpur.errors import ConfigError
from adpur.models.checkpoints.files import UNET_FILE, check_there, filled, find_weights, state_of
from adpur.models.checkpoints.folder import OWN, build_own, load_own, save_own
from adpur.models.checkpoints.heads import check_outputs, check_unet, denoiser_of, head_of
from adpur.models.checkpoints.json_file import read_json, write_json
from adpur.models.checkpoints.pipeline import check_pipeline, today
from adpur.models.checkpoints.scheduler import (
    ODD,
    load_label_scale,
    load_limit,
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
LOADS = {
    "pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir",
}  # fmt: skip
"""Arguments with which timm opens or fetches other files than the folder's own weights."""


def pretrained(classifier: str, denoiser: str | None = None, scorer: str | None = None) -> Networks:
    """Networks from weight folders, each found by `find_weights`.

    A diffusion model whose config leaves its image size open takes the classifier's.
    """
    check_there(*filter(None, (classifier, denoiser, scorer)))
    net = load_classifier(classifier)
    size = net.shape[1:]
    return Networks(
        net,
        load_denoiser(denoiser, size) if denoiser else None,
        load_denoiser(scorer, size) if scorer else None,
    )


def load_classifier(folder: str | Path) -> Classifier:
    """The classifier of a folder written by `save_classifier`."""
    folder = find_weights(folder)
    file = folder / "config.json"
    config = read_json(file)
    if missing := {"architecture", "init_args", "shape", "mean", "std"} - config.keys():
        told = ", ".join(sorted(missing))
        raise ConfigError(f"{file} lacks {told}; write it with save_classifier")
    _check_classifier(config, file)
    arguments = config["init_args"]

    def build() -> nn.Module:
        return build_classifier(config["architecture"], arguments, file)

    net = filled(build, folder / "model.safetensors", arguments)
    return Classifier(net, tuple(config["shape"]), config["mean"], config["std"])


def _check_classifier(config: dict[str, Any], file: Path) -> None:
    """Types and ranges of what a classifier's config says."""
    channels = config["shape"][:1] if isinstance(config["shape"], list) else None
    right = {
        "architecture": isinstance(config["architecture"], str),
        "init_args": isinstance(config["init_args"], dict),
        "shape": _is_numbers(config["shape"], 3, int) and min(config["shape"]) >= 1,
        "mean": _is_numbers(config["mean"]),
        "std": _is_numbers(config["std"]) and min(config["std"]) > 0,
    }
    right |= {k: right[k] and len(config[k]) in (1, *(channels or ())) for k in ("mean", "std")}
    if wrong := [key for key, fits in right.items() if not fits]:
        raise ConfigError(
            f"{file}: {wrong[0]} is {config[wrong[0]]!r:.80}; expected an architecture's name, its "
            "init_args, shape [C, H, W], and mean and std of 1 or C numbers, std above 0"
        )
    _check_asks(config["init_args"], file)


def _is_numbers(value: Any, count: int = 0, kind: Any = int | float) -> bool:
    if not isinstance(value, list) or not value or len(value) != (count or len(value)):
        return False
    return all(isinstance(v, kind) and not isinstance(v, bool) for v in value)


def save_classifier(
    classifier: Classifier, init_args: dict[str, Any], folder: Path, half: bool = False
) -> None:
    """Write `config.json` and `model.safetensors`; `init_args` rebuild `classifier.net`.

    With `half`, parameters are stored in fp16; they are loaded as fp32.

    Raises:
        ConfigError: for a network that `load_classifier` could not build again.
    """
    config = {
        "architecture": _architecture(classifier.net),
        "init_args": init_args,
        "shape": classifier.shape,
        "mean": classifier.mean.flatten().tolist(),
        "std": classifier.std.flatten().tolist(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config)
    (folder / "model.safetensors").write_bytes(save(state_of(classifier.net, half)))


def _architecture(net: nn.Module) -> str:
    """The name under which `build_classifier` makes this kind of network."""
    name = type(net).__name__
    if OURS.get(name) is type(net):
        return name
    known = getattr(net, "pretrained_cfg", None)  # of timm's networks
    if isinstance(known, dict) and isinstance(known.get("architecture"), str):
        return str(known["architecture"])
    raise ConfigError(
        f"expected a network that a name and init_args build again, {', '.join(OURS)} or one of "
        f"timm's, got {type(net).__module__}.{name}; give it to Networks from a function of yours"
    )


def build_classifier(
    architecture: str, arguments: dict[str, Any], where: Path | str = "init_args"
) -> nn.Module:
    """An untrained network by name: one of adpur's (`OURS`), or any of timm's."""
    import timm

    _check_asks(arguments, where)
    try:
        if architecture in OURS:
            return OURS[architecture](**arguments)
        if timm.is_model(architecture):
            return timm.create_model(architecture, **arguments)
    except NotImplementedError:  # of torch's meta device
        raise
    except ConfigError:
        raise
    except ODD as error:
        told = " ".join(str(error).split())[:200]
        raise ConfigError(f"{architecture} cannot be built with {arguments}: {told}") from error
    near = difflib.get_close_matches(architecture, [*OURS, *timm.list_models()])
    raise ConfigError(
        f"unknown architecture {architecture!r}; nearest: {', '.join(near) or 'none'}"
    )


def _check_asks(arguments: Mapping[str, Any], where: Path | str) -> None:
    """Refuse arguments with which a constructor would open other files."""
    if asks := sorted(key for key in LOADS if arguments.get(key)):
        raise ConfigError(
            f"{where}: expected init_args without `{asks[0]}`: weights come from "
            "model.safetensors, never from the network; leave the key out"
        )


def load_denoiser(folder: str | Path, size: Sequence[int] | None = None) -> Denoiser:
    """The diffusion model of a diffusers folder; its scheduler says what it predicts, and when.

    Args:
        folder: a pipeline, a bare `UNet2DModel`, or a folder of one of adpur's own networks.
        size: (H, W) of the images, where its config leaves `sample_size` open.
    """
    folder = find_weights(folder)
    check_pipeline(folder)
    unet_folder = folder / "unet" if (folder / "unet").is_dir() else folder
    config = read_json(unet_folder / "config.json")
    if config.get("_class_name") in OWN:
        return load_own(config, unet_folder)
    if config.get("_class_name") != "UNet2DModel":
        got, own = config.get("_class_name"), " or ".join(OWN)
        raise ConfigError(
            f"{unet_folder}: expected a diffusers UNet2DModel, {own}, found {got!r:.60}"
        )
    check_unet(config, unet_folder)
    file = scheduler_file(folder)
    unet = _load_unet(config, unet_folder)
    check_outputs(unet.config, unet_folder)
    shape = (unet.config["in_channels"], *_image_size(unet.config, size, unet_folder))
    denoiser = denoiser_of(DiffusersNet(unet, load_label_scale(file)), shape, file)
    denoiser.max_time = load_limit(file, denoiser.schedule)
    return denoiser


def _load_unet(config: dict[str, Any], folder: Path) -> Any:
    """The `UNet2DModel` of a folder, in evaluation mode as diffusers gives it."""
    arguments = unet_arguments(config, folder)

    def build() -> nn.Module:
        return build_unet(arguments, folder)

    return filled(build, folder / UNET_FILE, arguments, renamed=today)


def _image_size(
    config: Mapping[str, Any], size: Sequence[int] | None, where: Path | str
) -> tuple[int, int]:
    """(H, W) of a U-Net's images: its `sample_size`, or `size` where that is open."""
    given: Any = config.get("sample_size")
    if given is None and size is None:
        raise ConfigError(
            f"{where / 'config.json' if isinstance(where, Path) else where}: sample_size is open "
            "(null or missing), and nothing else says how large its images are; write "
            '"sample_size": 32 for images of 32x32'
        )
    given = size if given is None else given
    pair = [given, given] if isinstance(given, int) else given
    pair = list(pair) if isinstance(pair, tuple) else pair
    if not _is_numbers(pair, 2, int) or min(pair) < 1:
        raise ConfigError(
            f"{where}: expected sample_size H or [H, W], whole numbers, found {given!r:.60}"
        )
    return pair[0], pair[1]


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
    head = head_of(denoiser)
    unet_config = {"_class_name": "UNet2DModel"} | {
        k: v for k, v in unet.config.items() if not k.startswith("_")
    }
    if unet_config["sample_size"] is None:
        unet_config["sample_size"] = list(denoiser.shape[1:])
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    write_json(folder / "unet" / "config.json", unet_config)
    save_schedule(denoiser, folder / "scheduler", head)
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", head.get("_class_name", "DDPMScheduler")],
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
    shape = (unet.config["in_channels"], *_image_size(unet.config, None, where))
    return EpsDenoiser(DiffusersNet(unet), DiscreteVP(), shape)


def build_unet(config: dict[str, Any], where: Path | str = "the config") -> nn.Module:
    """An untrained diffusers `UNet2DModel` from its constructor arguments."""
    from diffusers import UNet2DModel

    try:
        return UNet2DModel(**config)
    except NotImplementedError:  # of torch's meta device
        raise
    except ODD as error:
        told = " ".join(str(error).split())[:200]
        raise ConfigError(f"{where}: not a UNet2DModel this diffusers can build: {told}") from error


def unet_arguments(config: Mapping[str, Any], where: Path | str) -> dict[str, Any]:
    """What of a config `UNet2DModel` is built from; diffusers ignores every other key, as we do.

    Raises:
        ConfigError: for a value of another type than its default, which the network might take and
            fail on later.
    """
    from diffusers import UNet2DModel

    known = inspect.signature(UNet2DModel).parameters
    found = {k: v for k, v in config.items() if k in known}
    for key, value in found.items():
        kinds = _kinds(known[key].default)
        if value is not None and (type(value) not in kinds) and kinds:
            raise ConfigError(
                f"{where}: not a UNet2DModel this diffusers can build: expected {key} like "
                f"{known[key].default!r}, found {value!r:.60}"
            )
    return found


def _kinds(default: Any) -> tuple[type, ...]:
    """The types of JSON, and of Python, that stand for a default's; () where it is None."""
    for kinds in ((bool,), (int, float), (str,), (tuple, list)):
        if type(default) in kinds:
            return kinds
    return ()
