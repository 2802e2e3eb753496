"""What a run leaves on disk, and how it goes on after a crash.

    manifest.json    the run's identity, written once
    rows-<n>.jsonl   one line per image and column, deterministic fields only
    session-<n>.json on which machine's arithmetic, and by which versions, those lines were computed
    timing-<n>.jsonl seconds, exempt from any equality
    gallery/         example images, clean, adversarial and purified
    adversarial/     every attacked image, where that was asked for

Each process of each session writes files of its own, the first number free. Rows are appended and
flushed to the disk a batch at a time; a torn last line is dropped when the run is opened again. Any
number of processes may continue, or work beside, what any other number began.
"""

import dataclasses
import hashlib
import inspect
import itertools
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Any

from torch import Tensor

from adpur.errors import ConfigError
from adpur.judging import arithmetic
from adpur.judging.arithmetic import Computed
from adpur.judging.scoreboard import Column, Score
from adpur.judging.store import ImageStore
from adpur.types import ABSENT

SESSION = ("arithmetic", "versions")
"""Parts of an identity in which the sessions of a run may differ, as far as `begin` allows."""


class Described(dict[str, Any]):
    """A described value that knows which of its settings are at their default.

    JSON does not hold `at_default`: what is read back has none.
    """

    at_default: frozenset[str] = frozenset()

    @classmethod
    def of(cls, told: Mapping[str, Any], defaults: Mapping[str, Any]) -> "Described":
        """Settings already described, beside the defaults of those that have one."""
        described = cls(told)
        same = {name for name, value in defaults.items() if told[name] == describe(value)}
        described.at_default = frozenset(same)
        return described


def describe(value: Any) -> Any:
    """A JSON form of any tree of frozen dataclasses: class names, fields, plain values.

    A field that two equal values may differ in (`compare=False`) is no part of what they are.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        compared = [f for f in dataclasses.fields(value) if f.compare]
        told = {f.name: describe(getattr(value, f.name)) for f in compared}
        return Described.of({"class": type(value).__name__} | told, _defaults(compared))
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


def _defaults(fields: Iterable["dataclasses.Field[Any]"]) -> dict[str, Any]:
    """What the fields of a dataclass mean where they are lacking, of those that may be."""
    found = {}
    for field in fields:
        if ABSENT in field.metadata:
            found[field.name] = field.metadata[ABSENT]
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
    return found


def digest(value: Any) -> str:
    """sha256 of the canonical (sorted, compact) JSON of a described value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Records:
    """The append-only records of one run folder, as one process sees them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scores: dict[Column, dict[int, Score]] = {}
        self.files: dict[str, Path] = {}
        """This writer's own, by kind, once it has written any."""
        self.writers: dict[Column, dict[int, int]] = {}
        """Which file's lines are in `scores`, by its number."""
        self.session: dict[str, Any] | None = None

    def claim(
        self, identity: dict[str, Any], columns: list[Column],
        about: dict[str, Any] | None = None, shared: bool = False,
        older: Callable[[], Mapping[str, str]] = dict,
    ) -> None:  # fmt: skip
        """Make the folder this identity's, or refuse with the differences; first process only.

        What is told `about` it makes no difference, and what sessions may differ in is for `begin`.
        Of several that claim at once the first wins. A claim under which nothing was recorded gives
        way, unless the folder is `shared`: others may be about to record. `older` gives the names
        that earlier versions had for values of this identity.
        """
        file = self.folder / "manifest.json"
        manifest = {"identity": identity, "sha256": digest(identity), "columns": columns}
        manifest["about"] = about or {}
        with _reported(file):
            self.folder.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(f".{uuid.uuid4().hex}")
            part.write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
            if shared or any(self.folder.glob("rows-*.jsonl")):
                with suppress(FileExistsError):
                    os.link(part, file)  # atomic on network file systems too
                part.unlink()
            else:
                part.replace(file)
        before = {k: v for k, v in self.identity.items() if k not in SESSION}
        now = {k: v for k, v in identity.items() if k not in SESSION}
        if any(differences(before, now)):
            self._refuse(differences(before, now, older()))

    def begin(self, session: dict[str, Any], mixed: bool = False) -> None:
        """Say on whose arithmetic this process computes, once the folder is claimed.

        Args:
            session: its `arithmetic` and `versions`.
            mixed: go on where another kind of device, precision or release of torch began.
        """
        before = self.identity
        self._refuse(arithmetic.forbidden(before, session, arithmetic.STRICT))
        if (told := list(arithmetic.forbidden(before, session))) and not mixed:
            raise ConfigError(
                f"{self.folder} was begun on another arithmetic: {'; '.join(told)}. Name another "
                "folder with --run, start anew with --fresh, or go on with --mixed, which marks "
                "the run"
            )
        self.session = session

    def _refuse(self, differences: Iterable[str]) -> None:
        """Say what makes another run, if anything does."""
        if told := list(differences):
            raise ConfigError(
                f"{self.folder} holds another run: {'; '.join(told[:4])}. "
                "Name another folder with --run, or start anew with --fresh"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """The run's, as it was first written."""
        told: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())["identity"]
        return told

    def read(self) -> None:
        """Load the rows of every process that ever wrote here."""
        self.scores, self.writers = {}, {}
        for column, entry, file in self._entries("rows"):
            self.scores.setdefault(column, {})[entry["index"]] = Score(**entry)
            self.writers.setdefault(column, {})[entry["index"]] = _number(file)

    def computed(self, columns: Iterable[Column]) -> Computed:
        """On whose arithmetic the images of some columns were computed, as last read."""
        images: dict[int, set[int]] = {}
        for column in columns:
            for index, writer in self.writers.get(column, {}).items():
                images.setdefault(writer, set()).add(index)
        return Computed.of([(self._session(n), images[n]) for n in sorted(images)])

    def known(self, column: Column, index: Iterable[int]) -> list[Score]:
        """The scores of these images that are already there."""
        have = self.scores.get(column, {})
        return [have[i] for i in index if i in have]

    def lines(self, row: str) -> str:
        """All lines of a row, in the order of its columns and images."""
        mine = sorted(column for column in self.scores if column.row == row)
        return _text(
            column._asdict() | score.as_dict()
            for column in mine
            for _, score in sorted(self.scores[column].items())
        )

    def add(self, column: Column, scores: list[Score]) -> None:
        """Append a batch and force it to the disk."""
        key = column._asdict()
        self._append("rows", [key | score.as_dict() for score in scores])
        self.scores.setdefault(column, {}).update({score.index: score for score in scores})
        writer = _number(self.files["rows"])
        self.writers.setdefault(column, {}).update({score.index: writer for score in scores})

    def time(self, column: Column, images: int, seconds: float) -> None:
        """Append what a batch cost."""
        self._append("timing", [column._asdict() | {"images": images, "seconds": seconds}])

    def finished(self, columns: Iterable[Column]) -> set[int]:
        """The images that have a score in every one of these columns."""
        return set.intersection(*(set(self.scores.get(column, {})) for column in columns))

    def keep(self, column: Column, images: dict[str, Tensor]) -> None:
        """Store example images of a column `(n, C, H, W)` beside the rows; none, no file."""
        with _reported(self._gallery.folder):
            self._gallery.add(_key(column), images)

    def gallery(self, column: Column) -> dict[str, Tensor]:
        """All stored images of a column, sorted by index; empty if none were kept."""
        return self._gallery.read(_key(column))

    def store(self, column: Column, index: Tensor, adversarial: Tensor, label: Tensor) -> None:
        """Store a batch of attacked images `(n, C, H, W)`, exactly as they were scored."""
        with _reported(self._adversarial.folder):
            images = {"index": index, "adversarial": adversarial, "label": label}
            self._adversarial.add(_key(column), {k: v.cpu() for k, v in images.items()})

    def adversarial(self, column: Column) -> dict[str, Tensor]:
        """`index` `(n,)`, `adversarial` `(n, C, H, W)` and `label` `(n,)` of a column, by index.

        Empty if none were stored (`Evaluation(store=True)` does).
        """
        return self._adversarial.read(_key(column))

    def stored(self, column: Column) -> set[int]:
        """Which attacked images of a column are stored."""
        return self._adversarial.index(_key(column))

    @property
    def _gallery(self) -> ImageStore:
        return ImageStore(self.folder / "gallery")

    @property
    def _adversarial(self) -> ImageStore:
        return ImageStore(self.folder / "adversarial")

    def seconds(self) -> dict[Column, float]:
        """Seconds per column over all processes and sessions."""
        total: dict[Column, float] = {}
        for column, entry, _ in self._entries("timing"):
            total[column] = total.get(column, 0.0) + entry["seconds"]
        return total

    def _session(self, number: int) -> dict[str, Any]:
        """What a writer said of itself; adpur 0.1.0's said nothing, and had the run's versions."""
        file = self.folder / f"session-{number}.json"
        if file.is_file():
            told: dict[str, Any] = json.loads(file.read_text())
            return told
        return {"versions": self.identity.get("versions", {})}

    def _entries(self, kind: str) -> Iterator[tuple[Column, dict[str, Any], Path]]:
        for file in sorted(self.folder.glob(f"{kind}-*.jsonl")):
            for line in file.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:
                    continue  # torn by a kill; the image is done again
                yield Column(entry.pop("row"), entry.pop("attack"), entry.pop("eps")), entry, file

    def _append(self, kind: str, entries: list[dict[str, Any]]) -> None:
        file = self._own(kind)
        text = _text(entries)
        with _reported(file), file.open("a+b") as stream:
            if stream.tell() and not _ends_with_newline(stream):
                text = "\n" + text
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def _own(self, kind: str) -> Path:
        """A file that no other process, shard or session writes: the first number free."""
        if kind not in self.files:
            for number in itertools.count():
                file = self.folder / f"{kind}-{number}.jsonl"
                with _reported(file), suppress(FileExistsError):
                    file.touch(exist_ok=False)  # O_EXCL: for one of all who try
                    self.files[kind] = file
                    break
            if kind == "rows" and self.session is not None:
                self._sign(self.session, self.files[kind])
        return self.files[kind]

    def _sign(self, session: dict[str, Any], rows: Path) -> None:
        """Say, before the first line, what computes the lines of a file."""
        file = self.folder / f"session-{_number(rows)}.json"
        part = file.with_suffix(f".{uuid.uuid4().hex}")
        with _reported(file):
            part.write_text(json.dumps(session, indent=1, sort_keys=True) + "\n")
            part.replace(file)


def _text(entries: Iterable[dict[str, Any]]) -> str:
    return "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries)


def differences(
    before: Any, now: Any, older: Mapping[str, str] | None = None, path: str = ""
) -> Iterator[str]:
    """Where two identities differ, as `path: before -> now`.

    A setting that one side lacks is at its default there (or at what its field's metadata say,
    `adpur.types.ABSENT`): the class has got it since. A setting that both have is compared as it
    stands. `older` gives the names of values of `now` that `before` may have instead.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted((before.keys() | now.keys()) - _unsaid(before, now)):
            inner = f"{path}.{key}" if path else key
            yield from differences(before.get(key), now.get(key), older, inner)
    elif _trees(before) and _trees(now) and len(before) == len(now):
        for k, (one, two) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, two, older, f"{path}.{k}" if path else str(k))
    elif before != now and not (older and isinstance(now, str) and before == older.get(now)):
        yield f"{path}: {_short(before)} -> {_short(now)}"


def _unsaid(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    """Settings that one of two described values lacks, and the other has at its default."""
    pairs = ((before, now), (now, before))
    return {
        key
        for one, other in pairs
        if isinstance(other, Described)
        for key in other.at_default - one.keys()
    }


def _trees(value: Any) -> bool:
    """A list of described values, rather than one plain value such as a list of numbers."""
    return isinstance(value, list) and any(isinstance(part, dict | list) for part in value)


def _key(column: Column) -> str:
    return digest(column)[:12]


def _number(file: Path) -> int:
    """The n of `rows-<n>.jsonl`."""
    return int(file.stem.rpartition("-")[2])


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
