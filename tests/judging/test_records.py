"""Records survive what runs do not."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from scores import score

from adpur import ConfigError, Linf, Stream
from adpur.judging.records import Records, describe, differences, digest
from adpur.judging.scoreboard import Column
from adpur.threat.knowledge import Knowledge
from adpur.types import ABSENT

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


def stored(value: Any) -> Any:
    """As a manifest gives it back."""
    return json.loads(json.dumps(describe(value)))


@dataclass(frozen=True)
class Inner:
    scale: float = 1.0
    steps: tuple[int, ...] = field(default_factory=lambda: (1, 2))


@dataclass(frozen=True)
class Outer:
    eps: float
    inner: Inner = Inner()
    clamp: bool = False
    changed: float = field(default=3.0, metadata={ABSENT: 2.0})


def without(value: Outer, *names: str) -> Any:
    """What an older version wrote, whose class had no such fields."""
    told = stored(value)
    return {key: told[key] for key in told if key not in names}


def test_a_field_that_came_later_reads_as_its_default() -> None:
    now = Outer(0.1, changed=2.0)
    for names in (("clamp",), ("inner",), ("inner", "clamp", "changed")):
        assert not list(differences(without(now, *names), describe(now)))
        assert not list(differences(describe(now), without(now, *names)))
    within = stored(now) | {"inner": {"class": "Inner", "scale": 1.0}}
    blocks = [{"attacks": [told]} for told in (within, describe(now))]
    assert not list(differences(*blocks))


@pytest.mark.parametrize(
    ("now", "lacking", "told"),
    [
        (Outer(0.1, changed=2.0, clamp=True), "clamp", "clamp: None -> True"),
        (Outer(0.1, Inner(2.0), changed=2.0), "inner", "inner: None -> "),
        (Outer(0.1, changed=2.0), "eps", "eps: None -> 0.1"),
        (Outer(0.1), "changed", "changed: None -> 3.0"),
        (Outer(0.1, changed=2.0), "class", "class: None -> Outer"),
    ],
)
def test_a_field_with_another_value_is_a_difference(now: Outer, lacking: str, told: str) -> None:
    (found,) = differences({"row": without(now, lacking)}, {"row": describe(now)})
    assert found.startswith(f"row.{told}")
    assert len(list(differences([describe(now)], [without(now, lacking)]))) == 1


def test_a_field_that_is_there_is_compared_as_it_stands() -> None:
    """A default that was changed is no excuse."""
    now = Outer(0.1, changed=2.0)
    before = stored(now) | {"clamp": True}
    assert list(differences(before, describe(now))) == ["clamp: True -> False"]
    assert list(differences([before], [describe(now)])) == ["0.clamp: True -> False"]
    assert list(differences({"steps": [1, 2]}, {"steps": [1, 3]})) == ["steps: [1, 2] -> [1, 3]"]
    assert len(list(differences([before], [describe(now)] * 2))) == 1


def test_a_value_may_have_had_another_name() -> None:
    before, now = {"net": "one", "rows": 64}, {"net": "v2-1", "rows": 64}
    assert not list(differences(before, now, {"v2-1": "one"}))
    assert list(differences(before, now, {"v2-1": "two"})) == ["net: one -> v2-1"]


def test_galleries_survive_a_batch_done_twice(tmp_path: Path) -> None:
    records = Records(tmp_path)
    for rows in ([0, 1, 2], [1, 2], []):
        index = torch.tensor(rows, dtype=torch.int64)
        records.keep(COLUMN, {"index": index, "clean": index.view(-1, 1, 1, 1) / 10})
    kept = records.gallery(COLUMN)
    assert kept["index"].tolist() == [0, 1, 2]
    assert torch.equal(kept["clean"].flatten(), torch.tensor([0, 1, 2]) / 10)
    assert records.gallery(Column("other")) == {}
