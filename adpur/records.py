"""What a run leaves on disk, and how it goes on after a crash.

    manifest.json       the run's identity, written once
    rows-<rank>.jsonl   one line per image and column, deterministic fields only
    timing-<rank>.jsonl seconds, exempt from any equality
    gallery/            example images, clean, adversarial and purified

Rows are appended and flushed to the disk a batch at a time; a torn last line is dropped when the
run is opened again. Any number of processes may continue what any other number began.
"""

import dataclasses
import hashlib
import inspect
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from adpur.errors import ConfigError
from adpur.metrics.scoreboard import Column, Score


def describe(value: Any) -> Any:
    """A JSON form of any tree of frozen dataclasses: class names, fields, plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__} | fields
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, dict):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(describe(v) for v in value)
    if isinstance(value, list | tuple):
        return [describe(v) for v in value]
    if inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value


def digest(value: Any) -> str:
    """sha256 of the canonical (sorted, compact) JSON of a described value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Records:
    """The append-only records of one run folder, as one process sees them."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder, self.rank = folder, rank
        self.scores: dict[Column, dict[int, Score]] = {}

    def claim(self, identity: dict[str, Any], columns: list[Column]) -> None:
        """Make the folder this identity's, or refuse with the differences; first process only."""
        file = self.folder / "manifest.json"
        if file.is_file() and any(self.folder.glob("rows-*.jsonl")):  # else nothing is at stake
            before = json.loads(file.read_text())["identity"]
            if told := list(differences(before, identity)):
                raise ConfigError(
                    f"{self.folder} holds another run: {'; '.join(told[:4])}. "
                    "Name another folder with --run, or start anew with --fresh"
                )
            return
        manifest = {"identity": identity, "sha256": digest(identity), "columns": columns}
        with _reported(file):
            self.folder.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            part.replace(file)

    def read(self) -> None:
        """Load the rows of every process that ever wrote here."""
        self.scores = {}
        for column, entry in self._entries("rows"):
            self.scores.setdefault(column, {})[entry["index"]] = Score(**entry)

    def known(self, column: Column, index: Iterable[int]) -> list[Score]:
        """The scores of these images that are already there."""
        have = self.scores.get(column, {})
        return [have[i] for i in index if i in have]

    def add(self, column: Column, scores: list[Score]) -> None:
        """Append a batch and force it to the disk."""
        key = column._asdict()
        self._append("rows", [key | score.as_dict() for score in scores])
        self.scores.setdefault(column, {}).update({score.index: score for score in scores})

    def time(self, column: Column, images: int, seconds: float) -> None:
        """Append what a batch cost."""
        self._append("timing", [column._asdict() | {"images": images, "seconds": seconds}])

    def keep(self, column: Column, images: dict[str, Tensor]) -> None:
        """Store example images of a column `(n, C, H, W)` beside the rows; none, no file."""
        if not len(images["index"]):
            return
        name = f"{digest(column)[:12]}-{int(images['index'][0])}.safetensors"
        file = self.folder / "gallery" / name
        with _reported(file):
            file.parent.mkdir(exist_ok=True)
            part = file.with_suffix(".part")
            part.write_bytes(save({k: v.contiguous() for k, v in images.items()}))
            part.replace(file)

    def gallery(self, column: Column) -> dict[str, Tensor]:
        """All stored images of a column, sorted by index; empty if none were kept."""
        files = sorted((self.folder / "gallery").glob(f"{digest(column)[:12]}-*.safetensors"))
        parts = [load_file(file) for file in files]
        if not parts:
            return {}
        merged = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        index, inverse = merged["index"].unique(return_inverse=True)  # type: ignore[no-untyped-call]
        first = torch.stack([(inverse == k).nonzero()[0, 0] for k in range(len(index))])
        return {k: v[first] for k, v in merged.items()}

    def seconds(self) -> dict[Column, float]:
        """Seconds per column over all processes and sessions."""
        total: dict[Column, float] = {}
        for column, entry in self._entries("timing"):
            total[column] = total.get(column, 0.0) + entry["seconds"]
        return total

    def _entries(self, kind: str) -> Iterator[tuple[Column, dict[str, Any]]]:
        for file in sorted(self.folder.glob(f"{kind}-*.jsonl")):
            for line in file.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # torn by a kill; the image is done again
                yield Column(entry.pop("row"), entry.pop("attack"), entry.pop("eps")), entry

    def _append(self, kind: str, entries: list[dict[str, Any]]) -> None:
        file = self.folder / f"{kind}-{self.rank}.jsonl"
        text = "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries)
        with _reported(file), file.open("a+b") as stream:
            if stream.tell() and not _ends_with_newline(stream):
                text = "\n" + text
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())


def differences(before: Any, now: Any, path: str = "") -> Iterable[str]:
    """Where two identities differ, as `path: before -> now`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            inner = f"{path}.{key}" if path else key
            yield from differences(before.get(key), now.get(key), inner)
    elif before != now:
        yield f"{path}: {_short(before)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."


@contextmanager
def _reported(file: Path) -> Iterator[None]:
    """Turn a failing disk into one line that names the path and what is safe."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"cannot write {file} ({error.strerror or error}); records so far are intact: "
            "make room, then run the same command again"
        ) from error


def _ends_with_newline(stream: Any) -> bool:
    stream.seek(-1, os.SEEK_END)
    ended: bool = stream.read(1) == b"\n"
    return ended
