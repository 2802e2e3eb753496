"""Weights on disk: where they are, and how they are read without running what they hold."""

import json
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from adpur.errors import ConfigError

UNET_FILE = "diffusion_pytorch_model.safetensors"


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


def load_into(net: nn.Module, file: Path) -> None:
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
    problems = list(misfits(net.state_dict(), state))
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConfigError(f"{file} does not fit its config: {'; '.join(problems[:3])}{more}")
    wanted = net.state_dict()  # weights stored in half precision are computed with in fp32
    state = {name: value.to(wanted[name].dtype) for name, value in state.items()}
    net.load_state_dict(state, assign=any(p.is_meta for p in net.parameters()))


def misfits(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> Iterator[str]:
    """Names and shapes that differ, each in words."""
    for key in sorted(expected.keys() | found.keys()):
        want = tuple(expected[key].shape) if key in expected else None
        got = tuple(found[key].shape) if key in found else None
        if want != got:
            told = ("absent" if shape is None else str(shape) for shape in (want, got))
            yield "{} expected {}, found {}".format(key, *told)


def state_of(net: nn.Module, half: bool = False) -> dict[str, torch.Tensor]:
    """The state dict as safetensors wants it; with `half`, its parameters rounded to fp16.

    Buffers keep their precision: they are few, and a variance may lie beyond fp16's range.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    if not half:
        return state
    rounded = {name: state[name].half() for name, _ in net.named_parameters()}
    if lost := [name for name, value in rounded.items() if not value.isfinite().all()]:
        raise ConfigError(f"half: {lost[0]} lies beyond fp16's range of 65,504; write fp32")
    return state | rounded


def read_json(file: Path) -> dict[str, Any]:
    """A JSON file, or the one-line reason why not."""
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(f"{file.parent}: expected a {file.name}, found none") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}: not valid JSON ({error})") from error
    return content


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Sorted, one key a line."""
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
