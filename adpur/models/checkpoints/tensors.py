"""The tensors of safetensors files: one file, a `variant` of it, or shards beside an index."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from adpur.errors import ConfigError
from adpur.models.checkpoints.json_file import read_json

VARIANTS = ("fp32", "fp16", "bf16")
"""Suffixes under which diffusers stores the same weights in another precision, best first."""


def read_weights(file: Path) -> dict[str, Tensor]:
    """All tensors of `file`, or of the shards or the variant that stand in its place."""
    state: dict[str, Tensor] = {}
    for part in weight_files(file):
        with _readable(part):
            state |= load_file(part)
    return state


def weight_files(file: Path) -> list[Path]:
    """The files that hold the weights which `file` names, as diffusers' `save_pretrained` writes.

    In this order: `file` itself; `NAME.safetensors.index.json` and its shards; a single variant,
    `NAME.fp16.safetensors` or its index. A variant that is no precision (`non_ema`) is other
    weights and is never taken unasked.

    Raises:
        ConfigError: where there is none, an index is damaged, or a shard is missing.
    """
    for name in (file.name, *(_variant(file.name, v) for v in VARIANTS)):
        if (place := file.with_name(name)).is_file():
            return [place]
        for index in _indices(file, name):
            if index.is_file():
                return _shards(index)
    raise ConfigError(f"{file}: weights file missing{_instead(file)}")


def _variant(name: str, variant: str) -> str:
    """NAME.safetensors -> NAME.fp16.safetensors."""
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.{variant}.{suffix}"


def _indices(file: Path, name: str) -> Iterator[Path]:
    """Where an index of `name` may lie: today's name, and the older one of a variant."""
    yield file.with_name(f"{name}.index.json")
    if name != file.name:
        variant = name.split(".")[-2]
        yield file.with_name(f"{file.name}.index.{variant}.json")


def _shards(index: Path) -> list[Path]:
    """The files an index maps its tensors to; all in its own folder."""
    mapping = read_json(index).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise ConfigError(f"{index}: expected an index with `weight_map`, tensor to file")
    names = sorted({str(name) for name in mapping.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ConfigError(
                f"{index}: expected shards *.safetensors in its own folder, found {name!r:.60}"
            )
        if not index.with_name(name).is_file():
            raise ConfigError(f"{index}: its shard {name} is missing; fetch it too")
    return [index.with_name(name) for name in names]


def _instead(file: Path) -> str:
    """What else lies there, and why it is not read."""
    pickles = [p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in file.parent.glob(pattern)]
    if pickles:
        return f"; {', '.join(pickles)} is a pickle and is not read"
    others = sorted(p.name for p in file.parent.glob("*.safetensors"))
    return f"; there is {', '.join(others[:3])}: rename what you mean" if others else ""


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    """Say in one line which file is damaged."""
    try:
        yield
    except SafetensorError as error:
        raise ConfigError(
            f"{file}: not a complete safetensors file ({error}); fetch it again"
        ) from error
