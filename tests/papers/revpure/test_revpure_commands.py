"""RevPure's figures by `adpur analyse`, on shipped weights: files, their numbers, their ink."""

import csv
from pathlib import Path

import pytest
from analysed import NETWORKS, analysed, in_colour

from adpur.papers.revpure.theorem.__main__ import main as theorem
from adpur.papers.revpure.theorem.dimension import CURVES, over_dimension

CONFIG = (
    NETWORKS
    + """\
    defenses:
      diffpure: {purifier: {class_path: adpur.ddpm, init_args: {t: 40, stride: 20}}}
      revpure: {purifier: {class_path: adpur.revpure, init_args: {t: 40, stride: 20, eta: 0}}}
    draws: 2
data: {class_path: adpur.Digits, init_args: {limit: 4}}
trainer:
  accelerator: cpu
  callbacks:
    - class_path: adpur.Robustness
      init_args: {name: pgd, attack: {class_path: adpur.PGD, init_args: {eps: 0.2, steps: 1}}}
"""
)
"""DiffPure and a RevPure that draws nothing: four digits, two calls, one step."""

COLUMNS = {
    "path-geometry": ("quantity", {"length", "cosine", "projection"}, 2 * 3 * 4),
    "purification-strips": ("picture", {"clean", "attacked", "x_t", "purified"}, 2 * 2 * 5),
    "direction-matrices": (
        "directions of", {"same input, other noise", "other inputs, same noise"}, 2 * 2 * (9 + 5),
    ),
    "direction-spectrum": (
        "quantity",
        {"mean correlation", "share of correlations near", "explained by"},
        2 * (3 * 101 + 2 * 8),
    ),
    "length-accuracy": ("attack", {"clean (pgd)", "pgd"}, 2 * 2 * 2),
    "subsequence-accuracy": ("attack", {"clean (pgd)", "pgd"}, 2 * 2 * 2),
    "compression": (
        "quantity",
        {"compression rate", "singular value", "draws right, attacked", "rank correlation"},
        2 * (7 + 64 * 4 + 4 + 1),
    ),
}  # fmt: skip
OPTIONS = {
    "direction-matrices": ["--count=3"],
    "direction-spectrum": ["--count=8"],
    "length-accuracy": ["--ts=[20, 40]"],
    "subsequence-accuracy": ["--counts=[1, 3]"],
    "compression": ["--count=1", "--eps=[0.1]", "--spectra=1"],
}


@pytest.mark.parametrize("name", COLUMNS)
def test_each_writes_what_it_drew(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn, rows = analysed([name, *OPTIONS.get(name, [])], CONFIG, capsys)
    assert in_colour(drawn) == (name != "purification-strips")  # grey pictures
    column, known, count = COLUMNS[name]
    assert {row["row"] for row in rows} == {"diffpure", "revpure"}
    assert {row[column] for row in rows} == known and len(rows) == count


def test_theorem_1_is_drawn_from_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("adpur.papers.revpure.theorem.__main__.settings", lambda: [])
    monkeypatch.setattr(
        "adpur.papers.revpure.theorem.dimension.over_dimension", lambda trials: answer
    )
    answer = over_dimension(200, at=(4, 64))
    theorem(["--trials=200", "--out", str(tmp_path)])
    drawn, table = (Path(line) for line in capsys.readouterr().out.split()[-2:])
    assert drawn == tmp_path / "theorem-1.png" and in_colour(drawn)
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["setting"] for row in rows} == set(CURVES)
    measured = [row for row in rows if row["measured"]]
    assert [int(row["n"]) for row in measured] == [4, 64] * 5
    for row in measured:
        margin = 2 * (float(row["high"]) - float(row["low"])) / 2
        assert abs(float(row["measured"]) - float(row["exact"])) < margin
    between = [float(row["exact"]) for row in rows if row["setting"] == "one copy"]
    assert between == sorted(between, reverse=True) and len(between) > 30
