"""Weights on disk: folders of safetensors and JSON, read without ever running what they hold.

A diffusion folder is a diffusers pipeline (`unet/`, `scheduler/`), a bare `UNet2DModel` folder,
or an `NCSNpp` folder (`folder.py`, written by `adpur convert`); a classifier folder holds
`config.json` (architecture and normalisation) and `model.safetensors`.
"""

import difflib
import json
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from adpur.errors import ConfigError
from adpur.models.adapters import DiffusersNet
from adpur.models.classifiers import CifarResNet, Classifier
from adpur.models.denoiser import Denoiser
from adpur.models.heads import adapter_of, check_unet, head_of
from adpur.models.ncsnpp import NCSNpp
from adpur.models.networks import Networks
from adpur.models.wideresnet import WideResNet
from adpur.schedule import DiscreteVP

UNET_FILE = "diffusion_pytorch_model.safetensors"
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
    config = _read_json(folder / "config.json")
    if missing := {"architecture", "init_args", "shape", "mean", "std"} - config.keys():
        told = ", ".join(sorted(missing))
        raise ConfigError(f"{folder / 'config.json'} lacks {told}; write it with save_classifier")
    net = build_classifier(config["architecture"], config["init_args"])
    _load_into(net, folder / "model.safetensors")
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
    _write_json(folder / "config.json", config)
    (folder / "model.safetensors").write_bytes(save(_state(classifier.net)))


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
    config = _read_json(unet_folder / "config.json")
    if config.get("_class_name") == "NCSNpp":
        from adpur.models.folder import load_ncsnpp

        return load_ncsnpp(config, unet_folder)
    if config.get("_class_name") != "UNet2DModel":
        got = config.get("_class_name")
        raise ConfigError(
            f"{unet_folder}: expected a diffusers UNet2DModel or an NCSNpp, found {got!r}"
        )
    unet = build_unet({k: v for k, v in config.items() if not k.startswith("_")}, unet_folder)
    _load_into(unet, unet_folder / UNET_FILE)
    check_unet(config, unet_folder)
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    shape = (config["in_channels"], height, width)
    file = _scheduler_file(folder)
    adapter = adapter_of(_read_json(file), file)
    return adapter(DiffusersNet(unet), _load_schedule(folder), shape)


def save_denoiser(denoiser: Denoiser, folder: Path) -> None:
    """Write a diffusers pipeline folder; the schedule must be linear or is stored beta by beta."""
    if isinstance(denoiser.net, NCSNpp):
        from adpur.models.folder import save_ncsnpp

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
        _write_json(folder / part / name, config)
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    _write_json(folder / "model_index.json", index)
    (folder / "unet" / UNET_FILE).write_bytes(save(_state(unet)))


def build_unet(config: dict[str, Any], where: Path | str = "the config") -> nn.Module:
    """An untrained diffusers `UNet2DModel` from its constructor arguments."""
    from diffusers import UNet2DModel

    try:
        return UNet2DModel(**config)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: not a UNet2DModel this diffusers can build: {error}"
        ) from error


def find_weights(name: str | Path) -> Path:
    """The folder `name`: as a path, under $ADPUR_WEIGHTS_PATH, or among the shipped weights."""
    extra = filter(None, os.environ.get("ADPUR_WEIGHTS_PATH", "").split(os.pathsep))
    for base in (Path(), *map(Path, extra), _shipped()):
        if (base / name).is_dir():
            return base / name
    if Path(name).is_file():
        raise ConfigError(
            f"{name} is a file; adpur reads weights only from folders of safetensors and JSON, "
            "never from a pickle, which can run code. Load it yourself with "
            "torch.load(..., weights_only=True) and write it with adpur.save_classifier; diffusion "
            "models of EDM, score_sde and guided-diffusion: adpur convert FILE OUT_FOLDER"
        )
    have = ", ".join(shipped_weights())
    raise ConfigError(f"weights {str(name)!r} not found as a folder; shipped: {have}")


def shipped_weights() -> list[str]:
    """The names of the folders that come with adpur, as `find_weights` takes them."""
    return sorted({str(p.parent.relative_to(_shipped())) for p in _shipped().glob("*/*/*.json")})


def _shipped() -> Path:
    return Path(str(resources.files("adpur"))) / "weights"


def _load_into(net: nn.Module, file: Path) -> None:
    """Fill `net` strictly."""
    if not file.is_file():
        pickles = [
            p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in file.parent.glob(pattern)
        ]
        hint = f"; {', '.join(pickles)} is a pickle and is not read" if pickles else ""
        raise ConfigError(f"{file}: weights file missing{hint}")
    try:
        state = load_file(file)
    except SafetensorError as error:
        raise ConfigError(
            f"{file}: not a complete safetensors file ({error}); fetch it again"
        ) from error
    problems = list(_differences(net.state_dict(), state))
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConfigError(f"{file} does not fit its config: {'; '.join(problems[:3])}{more}")
    net.load_state_dict(state, assign=any(p.is_meta for p in net.parameters()))


def _differences(
    expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]
) -> Iterator[str]:
    for key in sorted(expected.keys() | found.keys()):
        want = tuple(expected[key].shape) if key in expected else None
        got = tuple(found[key].shape) if key in found else None
        if want != got:
            told = ("absent" if shape is None else str(shape) for shape in (want, got))
            yield "{} expected {}, found {}".format(key, *told)


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
    config = _read_json(file)
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


def _state(net: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file.parent}: expected a {file.name}, found none") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}: not valid JSON ({error})") from error
    return content


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
