"""W&B offline: the real file, read back; never a question, never a wait."""

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy import blocks, run
from wandb.proto import wandb_internal_pb2 as pb

from adpur import Gallery, LevelHistograms
from adpur.lit.loggers import RowRuns, wandb_mode


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


def test_one_offline_run_per_row_holds_summary_histograms_and_pictures(tmp_path: Path) -> None:
    logger = RowRuns(group="night", save_dir=str(tmp_path), mode="offline")
    callbacks = [*blocks(), LevelHistograms(), Gallery()]
    module = run(tmp_path / "run", callbacks=callbacks, logger=[logger])
    for _ in range(100):  # another process writes the files; on a busy machine it may lag
        files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
        runs = {name: (group, values) for name, group, values in map(read, files)}
        if set(runs) == set(module.rows) and "t_figure._type" in runs["ssni"][1]:
            break
        time.sleep(0.2)
    assert set(runs) == {"undefended", "diffpure", "ssni"}
    assert {group for group, _ in runs.values()} == {"night"}
    for row, (_, values) in runs.items():
        for key in ("clean/acc", "clean/ci_lo", "robust/acc", "robust/ci_hi", "nfe", "seconds"):
            assert isinstance(values[key], int | float), (row, key)
        assert values["robust/acc"] <= values["clean/acc"]
    ssni = runs["ssni"][1]
    for name in ("t/clean", "t/pgd 0.3", "score_norm/clean", "score_norm/bpda 0.3"):
        assert ssni[f"{name}._type"] == "histogram"
        assert sum(ssni[f"{name}.values"]) == 12 * 3
    assert ssni["t_figure._type"] == ssni["gallery/pgd 0.3._type"] == "image-file"
    assert "t/clean._type" not in runs["diffpure"][1]
    assert module.outcomes


def test_no_key_means_offline_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    start = time.perf_counter()
    assert wandb_mode() == "offline"
    assert time.perf_counter() - start < 8


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode() == "disabled"
