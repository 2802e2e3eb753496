"""EDM's, score_sde's and guided-diffusion's checkpoints as weights folders adpur loads."""

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from adpur.diffusion.adapters import EDMDenoiser, EpsDenoiser
from adpur.diffusion.schedule import LinearVP
from adpur.errors import ConfigError
from adpur.models.checkpoints import files
from adpur.models.checkpoints.convert_classifier import convert_classifier, is_classifier
from adpur.models.checkpoints.folder import build_own, save_own
from adpur.models.checkpoints.foreign import from_edm, from_score_sde
from adpur.models.checkpoints.guided import convert_guided
from adpur.models.checkpoints.unpickle import Record, read_pickle, read_torch

KINDS = ("edm", "score_sde", "guided", "classifier")


@dataclass(frozen=True)
class Conversion:
    """What was converted: its kind, and what the file itself did not say."""

    kind: str
    notes: Sequence[str]


@dataclass(frozen=True)
class Said:
    """What a checkpoint does not hold, in the caller's words.

    Attributes:
        size: H = W of the images; 32 for score_sde and classifiers, as released for guided.
        head_dim: channels of an attention head of a guided-diffusion network of other widths.
        sde: "vp" vouches that a score_sde network with Fourier features is of the VP-SDE.
        mean: what a classifier's images are normalised with, one value or one per channel.
        std: see mean.
        activation: of a WideResNet.
    """

    size: int | None = None
    head_dim: int | None = None
    sde: str | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    activation: str = "relu"


def convert(file: Path, folder: Path, kind: str | None = None, said: Said = Said()) -> Conversion:
    """Write the weights folder of a checkpoint; no code of the checkpoint is run.

    Args:
        file: EDM's `.pkl`, score_sde's `.pth`, guided-diffusion's `.pt` or a CIFAR classifier's.
        folder: a new or empty folder.
        kind: one of `KINDS`; guessed from the content by default.
        said: what the file does not hold.

    Raises:
        ConfigError: for a missing or strange file, or a network that adpur has no equal of.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: expected a checkpoint file, found none")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: expected a new or empty folder, found files; name another")
    content = read_torch(file) if _is_torch(file) or kind in KINDS[1:] else read_pickle(file)
    kind, where = kind or guess(content, str(file)), str(file)
    with _readable(where, kind):
        if kind == "edm":
            return Conversion(kind, _edm(content, folder, where))
        if kind == "score_sde":
            return Conversion(kind, _score_sde(content, folder, said.size or 32, said.sde, where))
        if kind == "classifier":
            told = convert_classifier(
                content, folder, said.size or 32, said.mean, said.std, said.activation, where
            )
            return Conversion(kind, told)
        return Conversion(kind, _guided(content, folder, said, where))


@contextmanager
def _readable(where: str, kind: str) -> Iterator[None]:
    """A file from elsewhere may hold anything in any place; what that raises is its fault."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(str(error) if where in str(error) else f"{where}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        told = f"{type(e).__name__}: {' '.join(str(e).split())[:120]}"
        raise ConfigError(f"{where}: not a checkpoint of kind {kind} as published ({told})") from e


def guess(content: Any, where: str) -> str:
    """The kind of a checkpoint from its keys."""
    keys = set(map(str, content)) if isinstance(content, dict) else set()
    if isinstance(content, dict) and isinstance(content.get("ema"), Record):
        return "edm"
    if {"model", "ema"} <= keys:
        return "score_sde"
    if any(key.startswith("input_blocks.") for key in keys):
        return "guided"
    if is_classifier(content):
        return "classifier"
    raise ConfigError(
        f"{where}: expected EDM's {{'ema': network}}, score_sde's {{'model', 'ema'}} or "
        f"guided-diffusion's or a CIFAR classifier's state dict, got keys {sorted(keys)[:5]}; "
        "say --kind if you know it"
    )


def _edm(content: Any, folder: Path, where: str) -> list[str]:
    """The EMA network of `{'ema': EDMPrecond}`."""
    outer = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(outer, Record) or outer.kind != "EDMPrecond":
        got = outer.kind if isinstance(outer, Record) else type(outer).__name__
        raise ConfigError(f"{where}: expected an `ema` network EDMPrecond, got {got}")
    inner = outer.part("_modules").get("model")
    sigma_data = outer.state.get("sigma_data") if isinstance(outer.state, dict) else None
    if not isinstance(inner, Record) or not isinstance(sigma_data, int | float):
        raise ConfigError(f"{where}: its EDMPrecond lacks `model` or a number `sigma_data`")
    arguments, state = from_edm(inner, where)
    net = build_own("NCSNpp", arguments, where)
    net.load_state_dict(state)
    size = arguments["sample_size"]
    shape = (arguments["in_channels"], size, size)
    save_own(EDMDenoiser(net, shape, sigma_data), folder)
    return ["weights: `ema`", "schedule: VE up to sigma 80, EDM's own sampling range"]


def _score_sde(content: Any, folder: Path, size: int, sde: str | None, where: str) -> list[str]:
    """The EMA weights of `{'model', 'ema'}`."""
    weights = _shadows(content, where)
    if "0.W" in weights and sde != "vp":
        raise ConfigError(
            f"{where}: NCSN++ is trained on VP and on VE, and its file does not say which; "
            "expected --sde vp for a VP network (VE networks are not converted)"
        )
    arguments, state = from_score_sde(weights, size, where)
    net = build_own("NCSNpp", arguments, where)
    net.load_state_dict(state)
    save_own(EpsDenoiser(net, LinearVP(), (arguments["in_channels"], size, size)), folder)
    return [
        "weights: `ema` shadow_params, given to the parameters in the model's own order",
        f"image size: {size}, not in the file (--size)",
        "schedule: the VP-SDE with beta 0.1 to 20, not in the file; sub-VP looks the same and "
        "would be wrong",
    ]


def _shadows(content: Any, where: str) -> dict[str, Tensor]:
    """EMA weights by name, without `module.all_modules.`.

    score_sde averages the trainable parameters, in the order they have in the model: every entry
    of the state dict but its `sigmas` and the fixed Fourier frequencies `0.W`.
    """
    model, ema = (content.get(k) for k in ("model", "ema")) if isinstance(content, dict) else (0, 0)
    shadows = ema.get("shadow_params") if isinstance(ema, dict) else None
    if not isinstance(model, dict) or not isinstance(shadows, list):
        raise ConfigError(f"{where}: expected keys `model` and `ema` with `shadow_params`")
    prefix = "all_modules."
    named = {k.removeprefix("module.").removeprefix(prefix): v for k, v in model.items()}
    named.pop("sigmas", None)
    trained = [name for name in named if name != "0.W"]
    shapes = [tuple(named[name].shape) for name in trained]
    if shapes != [tuple(shadow.shape) for shadow in shadows]:
        raise ConfigError(
            f"{where}: its {len(shadows)} EMA weights do not fit its {len(trained)} parameters"
        )
    return named | dict(zip(trained, shadows, strict=True))


def _guided(content: Any, folder: Path, said: Said, where: str) -> list[str]:
    """A plain state dict, as a diffusers `UNet2DModel`."""
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ConfigError(f"{where}: expected guided-diffusion's plain state dict")
    config, state = convert_guided(content, said.size, said.head_dim)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / "config.json", {"_class_name": "UNet2DModel"} | config)
    told = {
        "_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "linear",
        "beta_start": 1e-4, "beta_end": 0.02, "prediction_type": "epsilon", "clip_sample": False,
    }  # fmt: skip
    files.write_json(folder / "scheduler_config.json", told)
    (folder / files.UNET_FILE).write_bytes(save({k: v.contiguous() for k, v in state.items()}))
    return [
        "weights: the file's own, which guided-diffusion publishes as EMA",
        "schedule: 1000 linear betas 0.0001 to 0.02, not in the file; edit scheduler_config.json",
    ]


def _is_torch(file: Path) -> bool:
    """Whether `torch.save` wrote it, as a zip or in the older form, and not pickle alone."""
    with file.open("rb") as stream:
        head = stream.read(32)
    magic = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
    return head.startswith((b"PK\x03\x04", magic))
