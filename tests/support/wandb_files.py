"""What W&B wrote offline, read back."""

import json
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2 as pb


def records(path: Path) -> Iterator[Any]:
    """W&B's file: a 7-byte header, then a LevelDB log of protobufs."""
    raw, pos, parts = path.read_bytes(), 7, b""
    assert raw[:4] == b":W&B"
    while pos + 7 <= len(raw):
        left = 32768 - pos % 32768
        if left < 7:
            pos += left
            continue
        _, size, kind = struct.unpack_from("<IHB", raw, pos)
        chunk, pos = raw[pos + 7 : pos + 7 + size], pos + 7 + size
        parts = chunk if kind in (1, 2) else parts + chunk  # full or first, else a continuation
        if kind in (1, 4):
            record = pb.Record()
            record.ParseFromString(parts)
            yield record


def read(path: Path) -> tuple[str, str, dict[str, Any]]:
    """A run's name, group, and every value of its history."""
    name = group = ""
    values: dict[str, Any] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "run":
            name, group = record.run.display_name or name, record.run.run_group or group
        if record.WhichOneof("record_type") == "history":
            for item in record.history.item:
                values[".".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return name, group, values


def settled(folder: Path, done: Callable[[list[Path]], bool]) -> list[Path]:
    """Another process writes the files; on a busy machine it may lag."""
    for _ in range(100):
        files = sorted(folder.glob("wandb/offline-run-*/*.wandb"))
        if done(files):
            break
        time.sleep(0.2)
    return files
