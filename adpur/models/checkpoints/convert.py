"""EDM's, score_sde's and guided-diffusion's checkpoints as weights folders adpur loads."""

import pickle
from collections.abc import Iterator, Mapping, Sequence
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
from adpur.models.checkpoints.json_file import write_json
from adpur.models.checkpoints.scheduler import LABEL_SCALE
from adpur.models.checkpoints.tensors import read_weights
from adpur.models.checkpoints.unpickle import Record, read_pickle, read_torch
from adpur.models.checkpoints.wrapped import Weights, find_state

KINDS = ("edm", "score_sde", "guided", "classifier")
BETAS = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
"""Betas in the words of the papers, and of diffusers."""


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
        weights: which set of weights to take, where the file holds several.
        steps: training times of a guided-diffusion network; improved-diffusion's CIFAR-10 has 4000.
        betas: "linear" (Ho et al. 2020) or "cosine" (Nichol & Dhariwal 2021, Eq. 17).
        label_scale: what it is told at index i is i times this: 1000 / steps where it was trained
            with improved-diffusion's `rescale_timesteps`, that code's default.
    """

    size: int | None = None
    head_dim: int | None = None
    sde: str | None = None
    mean: Sequence[float] = ()
    std: Sequence[float] = ()
    activation: str = "relu"
    weights: str | None = None
    steps: int = 1000
    betas: str = "linear"
    label_scale: float = 1.0


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
    content, where = _read(file, kind), str(file)
    with _readable(where, kind or "its content says"):
        weights = find_state(content, where, said.weights)
    kind = kind or guess(content, weights.state, where)
    with _readable(where, kind):
        if kind == "edm":
            return Conversion(kind, _edm(content, folder, where))
        if kind == "score_sde":
            return Conversion(kind, _score_sde(content, folder, said.size or 32, said.sde, where))
        if kind == "classifier":
            told = convert_classifier(
                weights, folder, said.size or 32, said.mean, said.std, said.activation, where
            )
            return Conversion(kind, told)
        return Conversion(kind, _guided(weights, folder, said, where))


def _read(file: Path, kind: str | None) -> Any:
    """The file's content by its first bytes, whatever its name."""
    if _is_safetensors(file):
        return read_weights(file)
    if _is_torch(file) or kind in KINDS[1:]:
        return read_torch(file)
    return read_pickle(file)


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


def guess(content: Any, state: Mapping[str, Tensor], where: str) -> str:
    """The kind of a checkpoint from its keys, and those of the state dict found in it."""
    keys = set(map(str, content)) if isinstance(content, dict) else set()
    if isinstance(content, dict) and isinstance(content.get("ema"), Record):
        return "edm"
    ema = content.get("ema") if isinstance(content, dict) else None
    if {"model", "ema"} <= keys and isinstance(ema, dict) and "shadow_params" in ema:
        return "score_sde"
    if any(key.startswith("input_blocks.") for key in state):
        return "guided"
    if is_classifier(state):
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


def _guided(weights: Weights, folder: Path, said: Said, where: str) -> list[str]:
    """A U-Net's state dict, as a diffusers `UNet2DModel`."""
    if said.betas not in BETAS:
        raise ConfigError(f"betas: expected {' or '.join(BETAS)}, got {said.betas!r}")
    if not weights.state:
        raise ConfigError(f"{where}: expected guided-diffusion's plain state dict")
    config, state = convert_guided(weights.state, said.size, said.head_dim)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {"_class_name": "UNet2DModel"} | config)
    told = {
        "_class_name": "DDPMScheduler", "num_train_timesteps": said.steps,
        "beta_schedule": BETAS[said.betas], "beta_start": 1e-4, "beta_end": 0.02,
        "prediction_type": "epsilon", "clip_sample": False,
    }  # fmt: skip
    scale = {} if said.label_scale == 1 else {LABEL_SCALE: said.label_scale}
    write_json(folder / "scheduler_config.json", told | scale)
    (folder / files.UNET_FILE).write_bytes(save({k: v.contiguous() for k, v in state.items()}))
    ends = " 0.0001 to 0.02" if said.betas == "linear" else ""
    return [
        *(weights.notes or ("weights: the file's own, which guided-diffusion publishes as EMA",)),
        f"schedule: {said.steps} {said.betas} betas{ends}, labels times {said.label_scale:g}; not "
        "in the file (--steps, --betas, --label-scale)",
    ]


def _is_safetensors(file: Path) -> bool:
    """Whether it begins as safetensors does: the length of its JSON header, and a brace."""
    with file.open("rb") as stream:
        head = stream.read(9)
    return len(head) == 9 and head[8:] == b"{" and head[5:8] == b"\0\0\0"


def _is_torch(file: Path) -> bool:
    """Whether `torch.save` wrote it, as a zip or in the older form, and not pickle alone."""
    with file.open("rb") as stream:
        head = stream.read(32)
    magic = pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2)
    return head.startswith((b"PK\x03\x04", magic))
