"""Weights on disk: where they are, and how they are read without running what they hold."""

import os
from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adpur.errors import ConfigError
from adpur.models.checkpoints.catalogue import called
from adpur.models.checkpoints.tensors import read_weights

FETCHED = Path("runs/weights")
"""Where `adpur fetch` puts folders, below the working folder."""
UNET_FILE = "diffusion_pytorch_model.safetensors"
COUNTS = {"layers_per_block", "num_blocks", "blocks", "depth", "depths", "layers"}
"""Keys of configs that say how often something is repeated."""


def find_weights(name: str | Path) -> Path:
    """The folder `name`: a path, under $ADPUR_WEIGHTS_PATH, fetched, or among those shipped."""
    extra = filter(None, os.environ.get("ADPUR_WEIGHTS_PATH", "").split(os.pathsep))
    for base in (Path(), *map(Path, extra), FETCHED, _shipped()):
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
    mend = f"; adpur fetch {name} gets it" if called(str(name)) else ""
    raise ConfigError(f"weights {str(name)!r} not found as a folder{mend}; shipped: {have}")


def check_there(*names: str) -> None:
    """Raise one `ConfigError` that says all of the weights folders that are not there."""
    lacking = []
    for name in dict.fromkeys(names):
        try:
            find_weights(name)
        except ConfigError as error:
            lacking.append((name, error))
    if len(lacking) == 1:
        raise lacking[0][1]
    if lacking:
        known = [name for name, _ in lacking if called(name)]
        mend = f"; adpur fetch {' and adpur fetch '.join(known)} gets them" if known else ""
        told = ", ".join(repr(name) for name, _ in lacking)
        raise ConfigError(f"weights {told} not found as folders{mend}")


def shipped_weights() -> list[str]:
    """The names of the folders that come with adpur, as `find_weights` takes them."""
    return sorted({str(p.parent.relative_to(_shipped())) for p in _shipped().glob("*/*/*.json")})


def _shipped() -> Path:
    return Path(str(resources.files("adpur"))) / "weights"


def filled(
    build: Callable[[], nn.Module],
    file: Path,
    config: Mapping[str, Any],
    renamed: Callable[[str], str] = str,
) -> nn.Module:
    """The network that `build` makes, filled strictly with the weights of `file`.

    It is built without memory first: what a config claims is compared with what the file holds
    before any of it is allocated.

    Args:
        build: makes an untrained network.
        file: see `read_weights`.
        config: what it is built from.
        renamed: today's name of a stored tensor.
    """
    state = {renamed(name): value for name, value in read_weights(file).items()}
    _check_counts(config, len(state), file)
    _check_fit(_shapes_of(build), state, file)
    try:
        net = build()
    except NotImplementedError as error:
        raise ConfigError(f"{file.parent}: its network cannot be built ({error})") from error
    wanted = net.state_dict()
    _check_fit(wanted, state, file)
    state = {name: _as(wanted[name], value, name, file) for name, value in state.items()}
    net.load_state_dict(state, assign=any(p.is_meta for p in net.parameters()))
    return net


def _check_counts(config: Mapping[str, Any], tensors: int, file: Path) -> None:
    """Refuse a config that repeats something more often than the file has tensors to fill."""
    for key in COUNTS & config.keys():
        given = config[key] if isinstance(config[key], list) else [config[key]]
        if any(isinstance(v, int) and v > tensors for v in given):
            raise ConfigError(
                f"{file} does not fit its config: {key} is {config[key]!r:.40}, and it holds "
                f"{tensors} tensors"
            )


def _shapes_of(build: Callable[[], nn.Module]) -> dict[str, torch.Tensor] | None:
    """The state dict of the network on torch's meta device; None where its code needs values."""
    try:
        with torch.device("meta"):
            return build().state_dict()
    except NotImplementedError:
        return None
    except ConfigError as error:
        if "meta" in str(error):  # what torch says of an operation that reads a value
            return None
        raise


def _check_fit(
    wanted: dict[str, torch.Tensor] | None, state: dict[str, torch.Tensor], file: Path
) -> None:
    problems = [] if wanted is None else list(misfits(wanted, state))
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConfigError(f"{file} does not fit its config: {'; '.join(problems[:3])}{more}")


def _as(wanted: torch.Tensor, value: torch.Tensor, name: str, file: Path) -> torch.Tensor:
    """`value` in the network's dtype: half precision is computed with in fp32, counters are not."""
    if wanted.is_floating_point() != value.is_floating_point():
        raise ConfigError(
            f"{file}: {name} expected {wanted.dtype}, found {value.dtype}; these are no weights of "
            "this network"
        )
    if value.is_floating_point() and value.isnan().any():
        raise ConfigError(f"{file}: {name} holds NaN; every output would be NaN")
    return value.to(wanted.dtype)


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
