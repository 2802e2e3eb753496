"""`adpur analyse` on a config of real components."""

import json
from pathlib import Path

import pytest
from analysed import NETWORKS, analysed, in_colour

from adpur.cli import main
from adpur.papers.analyse import ANALYSES, figures, find
from adpur.papers.ssni.norms import NormOverEps

CONFIG = (
    NETWORKS
    + """\
    defenses:
      bare: {purifier: {class_path: adpur.Identity}}
      ddpm: {purifier: {class_path: adpur.ddpm, init_args: {t: 40, stride: 20}}}
    draws: 2
data: {class_path: adpur.Digits, init_args: {limit: 4}}
trainer:
  accelerator: cpu
  callbacks:
    - class_path: adpur.Robustness
      init_args: {name: pgd, attack: {class_path: adpur.PGD, init_args: {eps: 0.2, steps: 1}}}
"""
)
"""Two rows, four digits, one step."""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    return tmp_path


def test_an_analysis_writes_a_figure_and_a_table(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn, rows = analysed(["norm-eps", "--eps=[0, 8/255]", "--images=3"], CONFIG, capsys)
    assert drawn == Path("runs/analyse/norm-eps-small.png") and in_colour(drawn)
    assert [(row["row"], float(row["eps"])) for row in rows] == [("ddpm", 0.0), ("ddpm", 8 / 255)]
    assert not list(Path("runs").glob("small*"))  # it is no run
    about = json.loads(drawn.with_suffix(".json").read_text())
    assert about["command"][:3] == ["adpur", "analyse", "norm-eps"] and len(about["images"]) == 3
    assert set(about["rows"]) == set(about["networks"]) == {"bare", "ddpm"} and about["seed"] == 0


def test_an_analysis_of_ones_own_is_named_by_its_path(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = "adpur.papers.ssni.norms.NormOverEps"
    assert main(["analyse", named, "-c", "small.yaml", "--eps=[0]", "--images=2"]) == 0
    assert f"{named}-small.csv" in capsys.readouterr().out


def test_an_interrupted_analysis_promises_nothing(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(NormOverEps, "ask", interrupted)
    assert main(["analyse", "norm-eps", "-c", "small.yaml"]) == 130
    assert capsys.readouterr().err == "adpur: interrupted; nothing of an analysis is kept\n"
    assert not Path("runs").exists()


def test_the_list_names_the_figure_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyse"]) == 0
    listed = capsys.readouterr().out
    for name in ANALYSES:
        assert f"\n{name} " in f"\n{listed}"


def test_a_reader_finds_a_figure_by_its_number() -> None:
    assert find("ssni-figure4") is find("norm-eps") is ANALYSES["norm-eps"]
    named = [name for asked in ANALYSES.values() for name in figures(asked.__doc__ or "")]
    assert all(find(name) for name in named if named.count(name) == 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["norm-epz", "-c", "small.yaml"], "no analysis 'norm-epz'; nearest: norm-eps"),
        (["ssni-figure5", "-c", "small.yaml"], "nearest: ssni-figure4"),
        (["adpur.PGD", "-c", "small.yaml"], "expected a subclass of adpur.papers"),
        (["nowhere.Figure", "-c", "small.yaml"], "no analysis 'nowhere.Figure'"),
        (["-c", "small.yaml", "norm-eps"], "expected adpur analyse NAME"),
        (["norm-eps", "-c", "small.yaml", "--eps=0.1"], "write a list"),
        (["norm-eps", "-c", "small.yaml", "--rows=ddpm", "--", "--only=bare"], "leave one out"),
        (["norm-eps"], "config"),
        (["norm-eps", "-c", "small.yaml", "--epz=1"], "no option --epz; nearest: --eps"),
        (["norm-eps", "-c", "small.yaml", "--rows=bare"], "needs a row that purifies"),
        (["norm-eps", "-c", "small.yaml", "--images=0"], "at least one image"),
        (["norm-eps", "-c", "addt_digits"], "not a test config"),
        (["norm-time", "-c", "small.yaml", "--times=1"], "expected times >= 2"),
    ],
)
def test_a_mistake_is_one_line(
    config: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["analyse", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert told in error and "\n" not in error
