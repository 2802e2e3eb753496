"""Arrays of a `.npz` file, believed only after its headers have been read."""

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np

from adpur.errors import ConfigError


def arrays(file: Path, names: Iterable[str], remedy: str) -> dict[str, Any]:
    """Some arrays of a file, in this machine's byte order.

    What their headers claim is compared with what the file holds, and with the memory there is,
    before any of it is read: a few hundred bytes can claim terabytes.

    Args:
        file: the `.npz` file.
        names: of the arrays.
        remedy: what to do instead, for messages.

    Raises:
        ConfigError: where it is no such file, lacks an array, or claims too much.
    """
    try:
        with ZipFile(file) as held:
            there = {name.removesuffix(".npy"): name for name in held.namelist()}
            if missing := [name for name in names if name not in there]:
                raise ConfigError(
                    f"{file} holds {', '.join(sorted(there)[:8]) or 'nothing'}; arrays "
                    f"{' and '.join(names)} are needed (it lacks {', '.join(missing)})"
                )
            return {name: _array(file, held, there[name]) for name in names}
    except ConfigError:
        raise
    except (ValueError, TypeError, EOFError, OSError, BadZipFile, RuntimeError) as error:
        told = (str(error).splitlines() or [type(error).__name__])[0][:80]
        raise ConfigError(
            f"{file} is not a .npz file of plain arrays ({told}); {remedy}"
        ) from error
    except Exception as error:  # zlib and numpy's parser of headers have errors of their own
        raise ConfigError(f"{file} is not a .npz file of plain arrays; {remedy}") from error


def mapped(file: Path, shape: tuple[int, ...], kind: Any, remedy: str) -> Any:
    """The array of an `.npy` file of this shape and kind of numbers, left on the disk."""
    try:
        found = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{file}: {error}; {remedy}") from error
    if found.shape != shape or not np.issubdtype(found.dtype, kind):
        raise ConfigError(
            f"{file}: expected {np.dtype(kind) if kind is np.uint8 else 'integers'} {shape}, "
            f"got {found.dtype} {found.shape}; {remedy}"
        )
    return found


def _array(file: Path, held: ZipFile, name: str) -> Any:
    shape, kind, begins = _header(held, name)
    size, there = math.prod(shape) * kind.itemsize, held.getinfo(name).file_size - begins
    what = f"{file}: {name.removesuffix('.npy')}"
    if size > there:
        raise ConfigError(
            f"{what} claims {kind} {shape}, {_told(size)}, and holds {_told(max(0, there))}; "
            "write it again"
        )
    if size > (memory := _memory()):
        raise ConfigError(
            f"{what} of {kind} {shape} takes {_told(size)}, this machine has {_told(memory)}; "
            "write fewer images"
        )
    with held.open(name) as stream:
        found = np.lib.format.read_array(stream, allow_pickle=False)
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def _header(held: ZipFile, name: str) -> tuple[tuple[int, ...], Any, int]:
    """Shape and type that an array claims, and where its values begin."""
    with held.open(name) as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, _, kind = read(stream)
        return shape, kind, stream.tell()


def _memory() -> int:
    """Bytes of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _told(size: int) -> str:
    """Bytes in words.

    >>> _told(3 * 2**40)
    '3.0 TiB'
    """
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024  # type: ignore[assignment]
    return f"{size:.1f} TiB"
