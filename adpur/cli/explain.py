"""A mistake in a config as one line that says where, what, and what is valid instead."""

import difflib
import inspect
import re
from collections.abc import Iterable
from importlib import import_module

import lightning.pytorch as pl

import adpur
from adpur.errors import ConfigError


def explain(error: Exception) -> str:
    """Jsonargparse's tree of words as one line: where, what is wrong, the nearest valid names."""
    text = str(error)
    path = ".".join(re.findall(r'[Pp]arser key "([^"]+)"', text))
    where = f"{path}: " if path else ""
    classes = re.findall(r"class_path '([\w.]+)'", text)
    if found := re.search(r"Option '([\w.+]+)' is not accepted", text):
        owner = classes[-1] if classes else ""
        what = f"{owner} has no setting" if owner else "no setting"
        return f"{where}{what} {found[1]!r}" + _near(found[1], _settings(owner))
    if found := re.search(r"has no attribute '(\w+)'|dot import path string: (\S+)", text):
        name = found[1] or found[2]
        return f"{where}no class or function {name!r}" + _near(name, adpur.__all__)
    found = re.search(r"(?:option|[Kk]ey|arguments:) [\"'`-]*([\w.+]+)", text)
    if found and not path:
        return f"no setting {found[1]!r}" + _near(found[1], _settings(""))
    if found := re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", text):
        return f"{where}{found[1]} is no {found[2]}; valid: {', '.join(_kin(found[2]))}"
    if found := re.search(r"(?s)Expected a <class 'dict'>.*Given value: (\{[^\n]*)", text):
        return f"{where}expected dict, got {found[1]}; YAML wants a space after each colon"
    if found := re.search(r"Expected a <class '(\w+)'>\. Got value: (.*)", text):
        return f"{where}expected {found[1]}, got {found[2]}"
    return " ".join(text.split())


def _near(name: str, known: Iterable[str]) -> str:
    by_last = {k.split(".")[-1]: k for k in known}
    close = difflib.get_close_matches(name.split(".")[-1], by_last, n=3, cutoff=0.5)
    return "; nearest valid: " + ", ".join(by_last[c] for c in close or sorted(by_last)[:8])


def _kin(base: str) -> list[str]:
    """What adpur has of a kind: its classes, and the functions annotated to return one."""
    kind = getattr(adpur, base, None)
    own = {name: getattr(adpur, name) for name in adpur.__all__}
    return [
        f"adpur.{name}"
        for name, value in own.items()
        if (inspect.isclass(value) and kind and issubclass(value, kind) and value is not kind)
        or getattr(value, "__annotations__", {}).get("return") is kind is not None
    ]


def _settings(owner: str) -> list[str]:
    """What a class takes; for none, the top-level keys of a config and the trainer's."""
    if not owner:
        top = ["model", "data", "threads", "run", "fresh", "vary", "only", "mixed"]
        trainer = [f"trainer.{name}" for name in inspect.signature(pl.Trainer).parameters]
        return [*top, "seed_everything", *trainer]
    module, _, name = owner.rpartition(".")
    return [*inspect.signature(getattr(import_module(module), name)).parameters]


def ours(error: BaseException | None) -> ConfigError | None:
    """The ConfigError a constructor raised, from under what jsonargparse wrapped around it."""
    while error is not None:
        if isinstance(error, ConfigError):
            return error
        error = error.__cause__ or error.__context__
    return None
