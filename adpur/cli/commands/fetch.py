"""`adpur fetch NAME|CONFIG`: a known checkpoint, or what a config names, as weights folders."""

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from adpur.errors import ConfigError
from adpur.models.checkpoints import catalogue
from adpur.models.checkpoints.catalogue import Checkpoint, called
from adpur.models.checkpoints.fetch import Asked, fetch
from adpur.models.checkpoints.files import FETCHED, find_weights


def main(argv: Sequence[str]) -> int:
    """Fetch one checkpoint by its name in `adpur weights`, or those a config lacks."""
    parser = ArgumentParser("adpur fetch", description=__doc__)
    parser.add_argument("what", help="a name of `adpur weights`, or a config")
    parser.add_argument("out", nargs="?", type=Path, help=f"a new folder; {FETCHED}/NAME")
    parser.add_argument("--url", help="where its file is, if not on Hugging Face")
    parser.add_argument("--sha256", help="what its file must have")
    parser.add_argument("--revision", help="on Hugging Face; a commit pins it")
    args = parser.parse_args(argv)
    asked = Asked(args.url, args.sha256, args.revision)
    if known := called(args.what):
        _print(fetch(known, args.out or FETCHED / known.name, asked))
        return 0
    if asked != Asked() or args.out:
        raise _unknown(args.what)
    return _of_config(args.what)


def _of_config(name: str) -> int:
    """Fetch what a config names and is not there; 2 if something remains that no fetch mends."""
    remaining = 0
    for folder in _lacking(name):
        known = called(folder)
        if known is not None and known.repo:
            _print(fetch(known, FETCHED / known.name))
            continue
        remaining += 1
        print(f"{folder}: {_how(known, folder)}")
    if not remaining:
        print(f"{name}: all of its networks are there")
    return 2 if remaining else 0


def _how(known: Checkpoint | None, folder: str) -> str:
    if known is None:
        return "no published checkpoint is called so; a fit writes it, or name your own folder"
    return f"{known.file} of {known.source}; adpur fetch {folder} --url ADDRESS"


def _lacking(name: str) -> list[str]:
    """The weights folders a config names that are not there, each once."""
    import yaml

    from adpur.shipped import resolve_config

    try:
        file = Path(resolve_config(name))
    except ConfigError:
        raise _unknown(name) from None
    named = dict.fromkeys(_folders(yaml.safe_load(file.read_text(encoding="utf-8"))))
    return [folder for folder in named if not _there(folder)]


def _folders(tree: Any) -> Iterator[str]:
    """What every `adpur.pretrained` of a config reads."""
    if isinstance(tree, list):
        for value in tree:
            yield from _folders(value)
    if isinstance(tree, dict):
        given = tree.get("init_args")
        if tree.get("class_path") == "adpur.pretrained" and isinstance(given, dict):
            parts = (given.get(part) for part in ("classifier", "denoiser", "scorer"))
            yield from (part for part in parts if isinstance(part, str))
        for value in tree.values():
            yield from _folders(value)


def _there(folder: str) -> bool:
    try:
        find_weights(folder)
    except ConfigError:
        return False
    return True


def _unknown(name: str) -> ConfigError:
    import difflib

    names = [known.name for known in catalogue.KNOWN]
    near = difflib.get_close_matches(name, names) or names
    return ConfigError(
        f"{name}: neither a checkpoint nor a config; nearest: {', '.join(near)} (adpur weights, "
        "adpur configs)"
    )


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)
