"""What a network is, to the bit, wherever its weights came from."""

import hashlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from adpur.types import ABSENT

FORM = "v2-"
"""How a fingerprint of today begins; those of adpur 0.1.0 are 64 hexadecimal digits alone."""
RELEASED = {"adpur", "torch", "torchvision", "diffusers", "timm", "builtins", "abc", "typing"}
"""Packages whose code has a version."""
TELLS_ITSELF = {"adpur", "diffusers"}
"""Packages whose settings `fingerprinted` tells: their constructors may change."""
UNSEEN = {"self", "device", "dtype", "inplace"}
"""Arguments of constructors that change no value, or that the tensors show."""
NO_DEFAULT = inspect.Parameter.empty


def fingerprint(module: nn.Module) -> str:
    """`v2-` and a sha256 of a network's structure, its schedules, its parameters and its buffers.

    It survives a release of torch and a class of adpur that is renamed or moved. Structure is each
    submodule's place, class and settings:

    * of torch, timm and users, the constructor's arguments that the module keeps under their own
      names, unless they are at their default (so a new argument of torch changes nothing);
    * what a method `fingerprinted()` returns, JSON of what tensors and submodules do not show.
      adpur's classes have it. A setting added later must be left out at the value that means what
      was before.

    A class counts by its name, and by `fingerprinted_as`, a string in its body, if it was renamed.
    Buffers that no state dict holds count too (a classifier's mean and std), and the source files
    and `extra_repr` of classes that come from neither adpur nor a library it knows. Dropout's rate
    counts: in adpur it is off whenever a network is tested, but a user's network may leave it on.
    Training mode does not count. What a class reads from elsewhere while it runs is not seen.

    >>> fingerprint(nn.ReLU()) == fingerprint(nn.ReLU(inplace=True)) != fingerprint(nn.SiLU())
    True
    """
    parts = list(module.named_modules(remove_duplicate=False))
    digest = hashlib.sha256(_canonical({name: _entry(part) for name, part in parts}))
    for told in sorted({_hashed(file) for _, part in parts for file in _all_sources(part)}):
        digest.update(told)
    for name, tensor in sorted(_tensors(module, duplicates=True), key=lambda named: named[0]):
        _add(digest, name, tensor)
    return FORM + digest.hexdigest()


def legacy_fingerprint(module: nn.Module) -> str:
    """The fingerprint that adpur 0.1.0 gave: of torch's `repr`, which changes between releases."""
    names = {type(part).__name__: _name(type(part)) for part in module.modules()}
    shown = re.sub(r"\b(\w+)\(", lambda found: names.get(found[1], found[1]) + "(", repr(module))
    # torch 2.15, which 0.1.0 wanted, shows the bias of a GroupNorm; older releases do not
    shown = re.sub(r"(GroupNorm\(\d+, \d+, eps=[^,]+, affine=True)\)", r"\1, bias=True)", shown)
    digest = hashlib.sha256(shown.encode())
    for file in sorted({f for part in module.modules() for f in _sources(type(part))}):
        digest.update(file.read_bytes())
    schedule = getattr(module, "schedule", None)
    if is_dataclass(schedule) and not isinstance(schedule, type):
        digest.update(json.dumps(_fields(schedule)).encode())
    for name, tensor in _tensors(module):
        _add(digest, name, tensor)
    return digest.hexdigest()


def is_of(told: str, module: nn.Module) -> bool:
    """Whether a stored fingerprint, of today's form or of 0.1.0's, is this network's."""
    now = fingerprint if told.startswith(FORM) else legacy_fingerprint
    return told == now(module)


def architecture(module: nn.Module) -> str:
    """Its class, and within brackets that of the one network it wraps.

    >>> architecture(nn.Sequential(nn.ReLU()))
    'Sequential(ReLU)'
    """
    inner = list(module.children())
    return type(module).__name__ + (f"({architecture(inner[0])})" if len(inner) == 1 else "")


def _entry(module: nn.Module) -> dict[str, Any]:
    """A submodule without its tensors and children."""
    kind = type(module)
    entry: dict[str, Any] = {"class": f"{_package(kind)}.{_name(kind)}"}
    if kept := _kept(module):
        entry["kept"] = kept
    if callable(told := getattr(module, "fingerprinted", None)):
        entry["told"] = told()
    schedule = getattr(module, "schedule", None)
    if is_dataclass(schedule) and not isinstance(schedule, type):
        entry["schedule"] = {"class": _name(type(schedule))} | _fields(schedule)
    if _package(_owner(kind, "extra_repr")) == "own" and "told" not in entry:
        entry["shown"] = module.extra_repr()
    return entry


def _kept(module: nn.Module) -> dict[str, Any]:
    """Plain arguments of the constructor that a module keeps, unless at their default."""
    held = vars(module)
    arguments = _arguments(type(module))  # type: ignore[arg-type]  # a class can be hashed
    defaults = {name: value for name, value in arguments.items() if name in held}
    plain = {name: _plain(held[name]) for name in defaults}
    return {
        name: value[0]
        for name, value in plain.items()
        if value is not None and value != _plain(defaults[name])
    }


@cache
def _arguments(kind: type) -> dict[str, Any]:
    """Arguments of the constructors of a class and its bases, with their defaults."""
    found: dict[str, Any] = {}
    for base in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        if "__init__" in vars(base) and _package(base) not in TELLS_ITSELF:
            parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc]
            found = {p.name: p.default for p in parameters if p.name not in UNSEEN} | found
    return found


def _plain(value: Any) -> tuple[Any] | None:
    """A setting as JSON, in a tuple of one; None for what is no plain value."""
    if isinstance(value, Enum):
        return (value.name,)
    if value is None or isinstance(value, bool | int | float | str):
        return (value,)
    if isinstance(value, torch.dtype):
        return (str(value),)
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return ([part[0] for part in parts if part],) if all(parts) else None
    if isinstance(value, Mapping):
        held = {str(k): _plain(v) for k, v in value.items()}
        return ({k: v[0] for k, v in held.items() if v},) if all(held.values()) else None
    if inspect.isroutine(value) or (isinstance(value, type) and value is not NO_DEFAULT):
        return (f"{_package(value)}.{value.__qualname__}",)
    return None


def _name(kind: type) -> str:
    """A class's own name, or the one it had when it was first fingerprinted."""
    return str(vars(kind).get("fingerprinted_as", kind.__name__))


def _package(thing: Any) -> str:
    """The package a class or function is released in; `own` for a user's."""
    package = (getattr(thing, "__module__", None) or "").partition(".")[0]
    return package if package in RELEASED else "own"


def _owner(kind: type, method: str) -> type:
    """The class of the bases that defines a method."""
    return next(base for base in kind.__mro__ if method in vars(base))


def _fields(schedule: Any) -> dict[str, Any]:
    """A schedule's fields; one that came after 0.1.0 is left out at the value that changes nothing.

    A default alone says nothing: changing it would change what an unchanged fingerprint means.
    """
    new = [f for f in fields(schedule) if ABSENT in f.metadata]
    same = {f.name for f in new if getattr(schedule, f.name) == f.metadata[ABSENT]}
    return {name: value for name, value in asdict(schedule).items() if name not in same}


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _tensors(module: nn.Module, duplicates: bool = False) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers by name; with `duplicates`, a shared one under all its names."""
    yield from module.named_parameters(remove_duplicate=not duplicates)
    yield from module.named_buffers(remove_duplicate=not duplicates)


def _add(digest: Any, name: str, tensor: torch.Tensor) -> None:
    digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    flat = tensor.detach().cpu().contiguous().flatten()
    digest.update(flat.view(torch.uint8).numpy().tobytes())


def _all_sources(module: nn.Module) -> list[Path]:
    """The user's source files of a submodule and of its schedule."""
    schedule = getattr(module, "schedule", None)
    return _sources(type(module)) + _sources(type(schedule))


def _sources(kind: type) -> list[Path]:
    """The source files of a class and its bases that are nobody's release."""
    own = [k for k in kind.__mro__ if k.__module__.partition(".")[0] not in RELEASED]
    return [Path(file) for k in own if (file := _file(k))]


def _hashed(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


def _file(kind: type) -> str | None:
    try:
        return inspect.getsourcefile(kind)
    except (TypeError, OSError):  # made in a shell
        return None
