"""W&B offline: the real file, read back; never a question, never a wait."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from scores import score
from toy import blocks, run, trainer
from wandb_files import read, records, settled

from adpur import (
    ClassifierTraining,
    ConfigError,
    Digits,
    Gallery,
    LevelHistograms,
    load_classifier,
)
from adpur.cli import main
from adpur.judging.scoreboard import Column, Outcome
from adpur.lit.logging.dashboard import workspace
from adpur.lit.logging.loggers import AutoWandbLogger, RowRuns, signed_in, wandb_mode, weights_name
from adpur.lit.logging.summary import row_summary
from adpur.models.checkpoints.fingerprint import fingerprint


def artifacts(path: Path) -> dict[str, tuple[str, dict[str, Any], set[str]]]:
    """A run's artifacts by name: type, metadata, files."""
    found = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "artifact":
            one = record.artifact
            files = {entry.path for entry in one.manifest.contents}
            found[one.name] = (one.type, json.loads(one.metadata or "{}"), files)
    return found


def test_one_offline_run_per_row_holds_summary_histograms_and_pictures(tmp_path: Path) -> None:
    logger = RowRuns(group="night", save_dir=str(tmp_path), mode="offline")
    callbacks = [*blocks(), LevelHistograms(), Gallery()]
    module = run(tmp_path / "run", callbacks=callbacks, logger=[logger])
    files = settled(tmp_path, lambda files: len(files) == 3 and all(map(_finished, files)))
    runs = {name: (group, values) for name, group, values in map(read, files)}
    assert set(runs) == {"undefended", "diffpure", "ssni"}
    assert {group for group, _ in runs.values()} == {"night"}
    for row, (_, values) in runs.items():
        for key in ("clean/acc", "clean/ci_lo", "robust/acc", "robust/ci_hi", "nfe", "seconds"):
            assert isinstance(values[key], int | float), (row, key)
        assert values["robust/acc"] <= values["clean/acc"]
    columns = runs["ssni"][1]
    assert columns["union/0.3/acc"] == columns["robust/acc"]
    assert "union/0.3/acc" not in runs["undefended"][1]
    ssni = runs["ssni"][1]
    for name in ("t/clean", "t/pgd 0.3", "score_norm/clean", "score_norm/bpda 0.3"):
        assert ssni[f"{name}._type"] == "histogram"
        assert sum(ssni[f"{name}.values"]) == 12 * 3
    assert ssni["t_figure._type"] == ssni["gallery/pgd 0.3._type"] == "image-file"
    assert "t/clean._type" not in runs["diffpure"][1]
    assert module.outcomes
    told = {read(file)[0]: artifacts(file) for file in files}
    parts = {k: fingerprint(net) for k, net in module.networks["default"].named_children()}
    for row, found in told.items():
        kinds = {kind: (name, meta, held) for name, (kind, meta, held) in found.items()}
        name, meta, held = kinds["records"]
        assert meta["weights"] == parts and held == {"manifest.json", "rows.jsonl"}
        networks = {n: m["fingerprint"] for n, (k, m, _) in found.items() if k == "network"}
        assert networks == {f"network-{made[:16]}": made for made in parts.values()}, row


def _finished(file: Path) -> bool:
    return any(record.WhichOneof("record_type") == "exit" for record in records(file))


def test_a_fit_logs_its_weights_under_the_name_a_test_asks_for(tmp_path: Path) -> None:
    logger = AutoWandbLogger(save_dir=str(tmp_path), mode="offline")
    module = ClassifierTraining(
        str(tmp_path / "weights"), arguments={"blocks": 1, "width": 4, "in_channels": 1},
        shape=(1, 8, 8),
    )  # fmt: skip
    fitted = trainer(
        tmp_path, [], max_steps=1, limit_val_batches=0, log_every_n_steps=1, logger=[logger]
    )
    fitted.fit(module, Digits(batch_size=64))
    (file,) = settled(tmp_path, lambda files: len(files) == 1 and _finished(files[0]))
    made = fingerprint(load_classifier(tmp_path / "weights"))
    assert made == fingerprint(module.classifier)
    kind, meta, held = artifacts(file)[weights_name(made)]
    assert kind == "weights" and meta == {"fingerprint": made}
    assert held == {f.name for f in (tmp_path / "weights").iterdir()}


def test_without_a_key_a_dashboard_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    with pytest.raises(ConfigError, match=r"got mode offline: run `wandb login`"):
        signed_in()


def test_without_the_package_a_dashboard_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    assert main(["dashboard", "night"]) == 2
    assert "pip install 'adpur[dashboard]'" in capsys.readouterr().err


def test_a_dashboard_compares_the_fixed_keys_of_its_groups() -> None:
    pytest.importorskip("wandb_workspaces")
    view = workspace(["night", "day"], "adpur", "someone")
    told = json.loads(view._to_model().model_dump_json())  # what save() would send
    assert (told["entity"], told["project"]) == ("someone", "adpur")
    text = json.dumps(told)
    for key in ("robust/acc", "clean/acc", "robust/worst_of_n", "robust/majority", "nfe"):
        assert key in text
    assert '"name": "group"}, "op": "IN", "value": ["night", "day"]' in text
    keys = row_summary("a", {Column("a"): Outcome.of([score(0, [1])])}, {}, {}).keys()
    assert {"clean/acc", "clean/worst_of_n", "clean/majority", "nfe", "seconds"} <= keys


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
