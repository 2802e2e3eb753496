"""Records survive what runs do not."""

import json
import os
from pathlib import Path

import pytest
import torch
from scores import score

from adpur import ConfigError, Linf, Stream
from adpur.judging.records import Records, describe, differences, digest
from adpur.judging.scoreboard import Column
from adpur.threat.knowledge import Knowledge

COLUMN = Column("row", "pgd", 0.2)


def test_what_one_process_wrote_another_reads(tmp_path: Path) -> None:
    for index in (0, 1):
        Records(tmp_path).add(COLUMN, [score(index, [1, 0])])
    records = Records(tmp_path)
    records.read()
    assert records.known(COLUMN, [0, 1, 2]) == [score(0, [1, 0]), score(1, [1, 0])]
    assert records.known(Column("other"), [0]) == []


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    Records(tmp_path).add(COLUMN, [score(0, [1]), score(1, [1])])
    file = tmp_path / "rows-0.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    records = Records(tmp_path)
    records.read()
    assert [s.index for s in records.known(COLUMN, range(3))] == [0]
    records.add(COLUMN, [score(1, [1]), score(2, [0])])
    records.read()
    assert [s.index for s in records.known(COLUMN, range(3))] == [0, 1, 2]


def test_another_identity_is_refused_with_the_difference(tmp_path: Path) -> None:
    Records(tmp_path).claim({"seed": 7}, [COLUMN])  # nothing recorded: nothing at stake
    Records(tmp_path).claim({"attacks": {"pgd": {"steps": 20}}, "seed": 0}, [COLUMN])
    Records(tmp_path).add(COLUMN, [score(0, [1])])
    Records(tmp_path).claim({"attacks": {"pgd": {"steps": 20}}, "seed": 0}, [COLUMN])
    with pytest.raises(ConfigError, match=r"attacks\.pgd\.steps: 20 -> 40.*--fresh"):
        Records(tmp_path).claim({"attacks": {"pgd": {"steps": 40}}, "seed": 0}, [COLUMN])


def test_a_full_disk_stops_with_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = Records(tmp_path)
    records.add(COLUMN, [score(0, [1])])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"rows-0\.jsonl \(No space left.*intact"):
        records.add(COLUMN, [score(1, [1])])
    records.read()
    assert records.known(COLUMN, [0]) == [score(0, [1])]


def test_describe_is_canonical() -> None:
    value = {"k": Knowledge(1, frozenset({Stream.REVERSE, Stream.FORWARD})), "n": Linf()}
    text = json.dumps(describe(value), sort_keys=True)
    assert '"streams": ["FORWARD", "REVERSE"]' in text and '"class": "Linf"' in text
    assert digest(describe(value)) == digest(json.loads(text))


def test_differences_name_what_is_missing() -> None:
    assert list(differences({"a": {"b": 1}}, {"a": {}, "c": 2})) == [
        "a.b: 1 -> None",
        "c: None -> 2",
    ]


def test_galleries_survive_a_batch_done_twice(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for rows in ([0, 1, 2], [1, 2], []):
        index = torch.tensor(rows, dtype=torch.int64)
        records.keep(COLUMN, {"index": index, "clean": index.view(-1, 1, 1, 1) / 10})
    kept = records.gallery(COLUMN)
    assert kept["index"].tolist() == [0, 1, 2]
    assert torch.equal(kept["clean"].flatten(), torch.tensor([0, 1, 2]) / 10)
    assert records.gallery(Column("other")) == {}
