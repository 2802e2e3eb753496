"""Where a user's files are."""

from pathlib import Path
from typing import Any


def expanded(path: str | Path) -> Path:
    """A path with `~` for the home folder, which no shell has seen in a config.

    >>> expanded("a/b").as_posix()
    'a/b'
    """
    return Path(path).expanduser()


def stamp(*files: Path) -> tuple[Any, ...]:
    """What changes when one of some files or folders does: a reader's cache is keyed by it."""
    told: list[tuple[int, int, int] | None] = []
    for file in files:
        try:
            found = file.stat()
        except OSError:
            told.append(None)
        else:
            told.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(told)
