"""`adpur reproduce`: what a table needs, one of each paper run, and ours beside the paper's."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished import finish
from tables import parts, read, stand_in, tiny_cifar

from adpur import ConfigError, shipped
from adpur.cli import main
from adpur.papers import reproduce
from adpur.papers.reproduce import missing, recipe, tables
from adpur.report import published
from adpur.report.published import Cell, comparison, expected
from adpur.report.results import results
from adpur.report.run import read_run

QUIET = [
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.accelerator=cpu",
]


pytestmark = pytest.mark.usefixtures("away")


def test_the_list_names_every_table_without_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce"]) == 0
    said = capsys.readouterr().out
    for table in tables():
        assert f"{table.file.stem} " in said and table.notes["networks"] in said
    names = [line.split()[0] for line in said.splitlines() if line.startswith("scoreopt")]
    assert names.index("scoreopt-table9") < names.index("scoreopt-table11")


def test_what_is_missing_is_a_line_each(away: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "ssni-table10"]) == 2
    said = capsys.readouterr().err.splitlines()[1:]
    assert [line.split()[0] for line in said] == ["data:", "network", "network"]
    assert "adpur convert checkpoint_8.pth score-sde-cifar10" in said[2]
    assert main(["reproduce", "ssni-tabel4"]) == 2
    assert "nearest: ssni-table4" in capsys.readouterr().err
    table = reproduce.find("ssni-table7")
    for name in table.networks:
        stand_in(name, away / name)
    (away / "score-sde-cifar10" / "score_norms.json").unlink()
    assert list(missing(table, ["--data.root=x"])) == [
        "score norms: adpur calibrate score-sde-cifar10 --data Cifar10 --levels 1 --continuous "
        "--unnoised"
    ]
    assert not list(missing(table, ["--data.root=x", "--model.networks.default=y"]))


def test_a_network_that_is_not_published_has_a_fit() -> None:
    assert recipe("runs/weights/papers/ddpm-cifar10-mse") == (
        "adpur fit -c addt-fit --model.perturbation.guide=adpur.Misdenoised "
        "--model.export=runs/weights/papers/ddpm-cifar10-mse --run=runs/fits/ddpm-cifar10-mse"
    )
    with pytest.raises(ConfigError, match=r"networks.csv has no nothing; there is: runs/weights"):
        recipe("nothing")


CUT: dict[str, dict[str, Any]] = {
    "adpur.PGD": {"steps": 1, "eot": 1},
    "adpur.ddpm": {"stride": 50},
    "adpur.ddim": {"stride": 50},
    "adpur.addt_ddpm": {"stride": 50},
    "adpur.addt_ddim": {"stride": 50},
    "adpur.Strided": {"stride": 50},
    "adpur.gdmp": {"stride": 18},
    "adpur.vp_sde": {"dt": 0.05},
    "adpur.Even": {"step": 0.05},
    "adpur.Diffusion": {"grid": {"class_path": "adpur.Strided", "init_args": {"stride": 50}}},
    "adpur.scoreopt_o": {"steps": 1},
    "adpur.scoreopt_n": {"steps": 1},
    "adpur.Evaluation": {"draws": 2, "select": 1, "rows": 4, "trust": "none", "gallery": 0},
}
"""The same tables in a few steps."""


@pytest.mark.parametrize(
    "name", ["ssni-table4", "scoreopt-table1", "addt-table1", "revpure-table1"]
)
def test_a_table_runs_and_stands_beside_the_papers(
    name: str, away: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = reproduce.find(name)
    shutil.copytree(shipped.shipped_papers(), away / "shipped" / "papers")
    monkeypatch.setattr(shipped, "shipped_configs", lambda: away / "shipped")
    content = read(table)
    for part in parts(content):
        if part.get("class_path") in CUT:
            part["init_args"] = part.get("init_args", {}) | CUT[part["class_path"]]
    header = "".join(f"# {key}: {text}\n" for key, text in table.notes.items())
    text = f"# {table.stage}: {table.title}\n{header}{yaml.safe_dump(content, sort_keys=False)}"
    (away / "shipped" / "papers" / table.file.name).write_text(text)
    tiny_cifar(away, monkeypatch)
    for network in table.networks:
        stand_in(network, away / network)
    assert main(["reproduce", name, *QUIET, "--data.limit=2"]) == 0
    assert f"Beside {name}:" in capsys.readouterr().out
    told = json.loads((away / "runs" / name / "results.json").read_text())
    beside = [e for e in told if "published" in e]  # a row run for comparison has no printed value
    shown = {(e["name"], c["attack"]) for e in beside for c in e["published"]["cells"]}
    assert shown == {(cell.row, cell.column) for cell in expected(name)}
    assert f"Beside {name}:" in (away / "runs" / name / "table.md").read_text()


def test_rows_left_out_take_their_sweeps_along(away: Path) -> None:
    from adpur.cli.run import parse

    for network in reproduce.find("scoreopt-table1").networks:
        stand_in(network, away / network)
    made = parse("test", ["-c", "scoreopt-table1", "--only=undefended,scoreopt-o", *QUIET])
    assert set(made.model.rows) == {"undefended", "scoreopt-o"}
    assert made.folder == Path("runs/scoreopt-table1-undefended,scoreopt-o")
    with pytest.raises(ConfigError, match="vary: no row 'nobody'"):
        parse("test", ["-c", "scoreopt-table1", "--only=scoreopt-o", "--vary={nobody: {t: [1]}}"])


def test_a_difference_is_outside_where_both_intervals_end(
    away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = finish(away / "run", only="pgd5")
    assert comparison(read_run(folder)) == []
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["about"]["table"] = "mine"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    run = read_run(folder)
    acc = 100 * next(o.correct.mean() for c, o in run.outcomes.items() if c.attack == "pgd50")
    cells = [
        Cell("plain", "pgd50", "acc", acc + 1, 0.5, 512),
        Cell("plain", "pgd50", "acc", acc + 40, 0, 512),
        Cell("plain", "clean", "seconds", 0.5, 0, 0),
        Cell("plain", "elsewhere", "acc", 50, 0, 512),
        Cell("plain", "pgd50", "claimed", 50, 0, 512),
    ]
    monkeypatch.setattr(published, "expected", lambda table: cells if table == "mine" else [])
    near, far, slow = published.beside(run)
    assert near.difference == pytest.approx(-1) and far.difference == pytest.approx(-40)
    assert "outside" not in near.cells()[-1] and "outside" in far.cells()[-1]
    assert near.tolerance > near.cell.half > 4 and slow.ours == pytest.approx(2 / 40 / 6)
    assert slow.cells()[-1] == f"{slow.difference:+.2f}" and "+- 0.5" in near.cells()[2]
    told = next(entry for entry in results(run) if entry["name"] == "plain")
    assert told["published"]["cells"][1]["difference"] == pytest.approx(-40)
    assert "published" not in next(entry for entry in results(run) if entry["name"] != "plain")
