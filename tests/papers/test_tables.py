"""The papers' tables: every config says what it needs, has a cell for each printed value, is built."""

import csv
from pathlib import Path

import pytest
import torch
from tables import parts, read, rows, stand_in

import adpur
from adpur import ConfigError, shipped
from adpur.lit.data import cifar10c
from adpur.models.checkpoints.catalogue import KNOWN
from adpur.papers import reproduce
from adpur.papers.reproduce import fit, score_norms, tables
from adpur.report import published
from adpur.report.published import expected

TABLES = tables()
ML = "mean_logits"
FITS = [
    line.split(",")[0]
    for line in (shipped.shipped_papers() / reproduce.NETWORKS).read_text().splitlines()[1:]
]
NAMED = [pytest.param(table, id=table.file.stem) for table in TABLES]
QUIET = ["--trainer.logger=false", "--trainer.accelerator=cpu"]


pytestmark = pytest.mark.usefixtures("away")


@pytest.mark.parametrize("table", NAMED)
def test_a_header_says_what_the_config_needs(table: reproduce.Table) -> None:
    content = read(table)
    assert table.stage in ("test", "fit") and len(table.title.split()) > 5
    keys = ("classifier", "denoiser")
    named = [part[key] for part in parts(content["model"]) for key in keys if key in part]
    assert set(table.networks) == set(named)
    data = getattr(adpur, content["data"]["class_path"].removeprefix("adpur."))
    assert table.notes["data"] == getattr(data, "variable", cifar10c.VARIABLE)
    assert ("score norms" in table.notes) == bool(score_norms(content))
    assert table.notes["cost"]
    for part in parts(content):
        if str(part.get("class_path")).startswith("adpur."):
            assert hasattr(adpur, part["class_path"].removeprefix("adpur."))


@pytest.mark.parametrize("table", NAMED)
def test_every_network_has_a_source(table: reproduce.Table) -> None:
    for name in table.networks:
        assert any(k.name == name for k in KNOWN) or shipped.resolve_config(fit(name)[1])


@pytest.mark.parametrize("table", [p for p in NAMED if p.values[0].stage == "test"])
def test_every_printed_value_has_its_cell(table: reproduce.Table) -> None:
    content, name = read(table), table.file.stem
    assert content["model"]["init_args"]["table"] == name
    blocks = [c["init_args"] for c in content["trainer"].get("callbacks", [])]
    for cell in expected(name):
        assert cell.row in rows(content)
        for block in blocks:
            if block["name"] == cell.column.removeprefix("clean (").removesuffix(")"):
                assert "only" not in block or cell.row.split(" ")[0] in block["only"]
                break
        else:
            assert cell.column == "clean"
        assert 0 <= cell.value <= 100 and cell.estimand in ("acc", ML, "claimed", "seconds")
    assert bool(expected(name)) != ("lost in conversion; none" in table.notes.get("paper", ""))


def test_every_printed_value_belongs_to_a_config() -> None:
    with (shipped.shipped_papers() / published.EXPECTED).open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    known = {table.file.stem for table in TABLES}
    found = {f"{line['paper']}-{line['table']}" for line in lines}
    assert {name for name in found if not name.startswith("scoreopt-table5-")} <= known
    cells = [
        (line["paper"], line["table"], line["row"], line["column"], line["estimand"])
        for line in lines
    ]
    assert len(set(cells)) == len(cells)


@pytest.mark.slow
@pytest.mark.parametrize("table", NAMED)
def test_every_table_instantiates(table: reproduce.Table, away: Path) -> None:
    """Tiny networks of the real ones' prediction, schedule and shape in their place."""
    from adpur.cli.run import parse

    for name in table.networks:
        stand_in(name, away / name)
    if table.file.stem == "addt-table7":
        with pytest.raises(ConfigError, match="FrechetDistance weights"):
            parse(table.stage, ["-c", "addt-table7", *QUIET])
        return
    made = parse(table.stage, ["-c", table.file.stem, *QUIET])
    assert made.folder == Path("runs") / table.file.stem
    if table.stage == "test":
        assert set(made.model.rows) == rows(read(table))
        made.model.read_blocks(made.trainer.callbacks, made.datamodule.classes)


@pytest.mark.slow
@pytest.mark.parametrize("folder", FITS)
def test_every_fit_instantiates(folder: str, away: Path) -> None:
    from adpur.cli.run import parse

    line = fit(folder)
    names = [word.split("=")[1] for word in line if word.startswith("--model.networks")]
    for name in [*names, *(["wrn-28-10-cifar10", "ddpm-cifar10"] if "addt-fit" in line else [])]:
        stand_in(name, away / name)
    with torch.device("meta") if "addt-fit" not in line else torch.device("cpu"):
        made = parse("fit", [*line, *QUIET])
    assert str(made.model.export) == folder and made.folder == Path("runs/fits") / Path(folder).name
