"""A run goes on under another instruction set and says so; under another device, if asked."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from toy import evaluation, in_child, killed_after, rows, run

from adpur import ConfigError
from adpur.judging import arithmetic
from adpur.judging.arithmetic import Computed, forbidden, in_use, probe
from adpur.report.page import page
from adpur.report.results import results
from adpur.report.run import read_run
from adpur.report.table import notes, write_csv
from adpur.trust.report import read_report

pytestmark = pytest.mark.usefixtures("forks")

CPU = torch.device("cpu")
AVX2 = {"instructions": "AVX2", "onednn": "AVX2", "bits": "11111111"}
AVX512 = {"instructions": "AVX512", "onednn": "AVX512", "bits": "22222222"}
CARD = {"device": "cuda", "card": "NVIDIA H100", "cudnn_tf32": False}


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run killed under AVX2, in the second of three batches; this process has AVX512."""

    def work() -> None:
        monkeypatch.setattr(arithmetic, "_of_processor", lambda: AVX2)
        killed_after(14)()
        run(tmp_path)

    in_child(work)
    monkeypatch.setattr(arithmetic, "_of_processor", lambda: AVX512)
    return tmp_path


def rewritten(folder: Path, part: str, **told: Any) -> None:
    """Change what the manifest and the first session say."""
    for file in (folder / "manifest.json", folder / "session-0.json"):
        content = json.loads(file.read_text())
        (content.get("identity") or content)[part].update(told)
        file.write_text(json.dumps(content))


SENTENCE = (
    "rows were computed under two instruction sets (AVX2: 10 images; AVX512: 7 images): "
    "decisions are equal up to ties, last bits are not"
)


def test_another_instruction_set_goes_on_and_is_marked_everywhere(half: Path) -> None:
    run(half, evaluation(trust="quick"))
    assert json.loads((half / "session-0.json").read_text())["arithmetic"]["bits"] == "11111111"
    assert json.loads((half / "session-1.json").read_text())["arithmetic"]["bits"] == "22222222"
    told = read_run(half)
    assert SENTENCE in notes(told)  # printed, and table.md
    assert SENTENCE in page([told])
    for entry in results(told):
        images = entry["arithmetic"]["images"]
        assert set(images) == {"AVX2", "AVX512"} and not entry["arithmetic"]["mixed"]
        assert "under two instruction sets" in entry["arithmetic"]["marks"][0]
    write_csv([told], half / "table.csv")
    with (half / "table.csv").open() as stream:
        assert {line["arithmetic"] for line in csv.DictReader(stream)} >= {
            "AVX2: 10 images; AVX512: 7 images"
        }
    found = [f for f in read_report(half).findings if f.check == "T20"]
    assert len(found) == 5 and {str(f.grade) for f in found} == {"info"}
    assert all("AVX2: " in f.measured and "AVX512: " in f.measured for f in found)
    assert not any(told.warnings(row) for row in told.rows)


def test_one_instruction_set_is_no_mark(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "_of_processor", lambda: AVX2)
    run(half, evaluation(trust="quick"))
    computed = read_run(half).computed()
    assert computed == Computed({"AVX2": 12})
    assert {str(f.grade) for f in read_report(half).findings if f.check == "T20"} == {"pass"}


def test_a_card_is_refused_or_asked_for_and_then_a_warning(
    half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = arithmetic.in_use
    monkeypatch.setattr("adpur.lit.test.identity.in_use", lambda *args: plain(*args) | CARD)
    before = rows(half)
    with pytest.raises(ConfigError, match=r"another arithmetic: device: cpu -> cuda\. .*--mixed"):
        run(half)
    assert rows(half) == before
    module = evaluation(trust="quick")
    module.mixed = True
    run(half, module)
    told = read_run(half)
    (mark,) = told.computed().marks
    assert mark == (
        "rows were computed on two kinds of device or precision (AVX2: 10 images; cuda NVIDIA "
        "H100: 7 images): decisions near a tie and all last bits differ between them"
    )
    assert told.computed().mixed
    assert all(any(f.check == "T20" for f in told.warnings(row)) for row in told.rows)


@pytest.mark.parametrize(
    ("part", "told", "said"),
    [
        ("versions", {"torch": "2.14.0"}, r"torch: 2\.14\.0 -> "),
        ("arithmetic", {"matmul": "medium"}, "matmul: medium -> highest"),
        ("arithmetic", {"deterministic": True}, "deterministic: True -> False"),
        ("arithmetic", {"compiled": True}, "compiled: True -> False"),
    ],
)
def test_another_precision_or_torch_is_refused_or_marked(
    part: str, told: dict[str, Any], said: str, half: Path
) -> None:
    rewritten(half, part, **told)
    with pytest.raises(ConfigError, match=said):
        run(half)
    module = evaluation()
    module.mixed = True
    run(half, module)
    computed = read_run(half).computed()
    assert computed.mixed and computed.marks


def test_r_stays_strict_whatever_is_asked(half: Path) -> None:
    module = evaluation(rows=5)
    module.mixed = True
    with pytest.raises(ConfigError, match="holds another run: rows: 4 -> 5"):
        run(half, module)


def test_dtype_stays_strict_whatever_is_asked(half: Path) -> None:
    rewritten(half, "arithmetic", dtype="float64")
    module = evaluation()
    module.mixed = True
    with pytest.raises(ConfigError, match="holds another run: dtype: float64 -> float32"):
        run(half, module)


def test_another_adpur_goes_on_and_is_marked(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "_of_processor", lambda: AVX2)
    rewritten(half, "versions", adpur="0.0.9")
    run(half)
    (mark,) = read_run(half).computed().marks
    assert mark.startswith("rows were computed by adpur 0.0.9 (10 images) and adpur ")


def test_what_a_run_did_not_record_is_unknown(half: Path) -> None:
    """Of adpur 0.1.0: no device, no instruction set, no session file."""
    (half / "session-0.json").unlink()
    file = half / "manifest.json"
    content = json.loads(file.read_text())
    content["identity"]["arithmetic"] = {
        "dtype": "float32",
        "matmul": "highest",
        "cudnn_tf32": True,
    }
    file.write_text(json.dumps(content))
    run(half)
    (mark,) = read_run(half).computed().marks
    assert "(not recorded: 10 images; AVX512: 7 images)" in mark
    assert not read_run(half).computed().mixed


def session(**told: Any) -> dict[str, Any]:
    plain = {"dtype": "float32", "device": "cpu", "matmul": "highest"} | AVX2
    return {"arithmetic": plain | told, "versions": {"adpur": "1", "torch": "2"}}


@pytest.mark.parametrize(
    ("one", "two", "said"),
    [
        ({}, {"bits": "3"}, "on two makes of processor (AVX2 (bits 11111111): 2 images; AVX2 (bits 3): 1 images)"),
        ({}, {"onednn": "AVX"}, "under two instruction sets (AVX2: 2 images; AVX2 with oneDNN at AVX: 1 images)"),
        (CARD, CARD | {"card": "A100"}, "on two kinds of card (cuda NVIDIA H100: 2 images; cuda A100: 1 images)"),
        (CARD, CARD | {"cudnn_tf32": True}, "(cuda NVIDIA H100: 2 images; cuda NVIDIA H100 (TF32 convolutions): 1 images)"),
        ({}, {"matmul": "medium"}, "on two kinds of device or precision (AVX2: 2 images; AVX2 (matmul medium): 1 images)"),
    ],
    ids=["make", "oneDNN", "card", "TF32", "matmul"],
)  # fmt: skip
def test_each_difference_has_its_words(one: dict, two: dict, said: str) -> None:
    (mark,) = Computed.of([(session(**one), {1, 2}), (session(**two), {3})]).marks
    assert said in mark
    assert Computed.of([(session(**one), {1, 2}), (session(**one), {2, 3})]).images == {
        arithmetic._name(session(**one)["arithmetic"]): 3
    }


def test_what_is_not_recorded_is_let_pass() -> None:
    assert not list(forbidden({}, session()))
    assert not list(forbidden({"arithmetic": {"cudnn_tf32": True}}, session()))
    assert list(forbidden(session(), session(device="cuda"))) == ["device: cpu -> cuda"]


def test_what_is_in_use_follows_torchs_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = in_use(CPU, [nn.ReLU()])
    assert plain["device"] == "cpu" and not plain["deterministic"] and not plain["compiled"]
    assert plain["instructions"] == torch.backends.cpu.get_cpu_capability()
    net = nn.Sequential(nn.ReLU())
    net[0].compile(backend="eager")
    assert in_use(CPU, [net])["compiled"]
    torch.use_deterministic_algorithms(True)
    try:
        assert in_use(CPU, [])["deterministic"]
    finally:
        torch.use_deterministic_algorithms(False)


ALL = {f"avx512_{part}": True for part in ("f", "bw", "vl", "dq")} | {"avx": True, "avx2": True}


@pytest.mark.parametrize(
    ("asked", "has", "level"),
    [
        (None, ALL, "AVX512"),
        ("ALL", ALL, "AVX512"),
        ("avx2", ALL, "AVX2"),
        ("AVX2_VNNI_2", ALL, "AVX2"),
        ("AVX512_CORE_AMX", ALL, "AVX512"),
        ("AVX10_1_512", ALL, "AVX512"),
        ("SSE41", ALL, "SSE41"),
        ("AVX512_CORE", ALL | {"avx512_dq": False}, "AVX2"),
        (None, {"avx": True}, "AVX"),
        (None, {}, "SSE41"),
    ],
)
def test_onednn_uses_what_there_is_and_is_allowed(
    asked: str | None, has: dict[str, bool], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if asked is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", asked)
    told = has | {"architecture": "x86_64"}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert arithmetic._onednn() == level
    told["architecture"] = "aarch64"
    assert arithmetic._onednn() is None


def test_the_probe_moves_nothing_and_repeats() -> None:
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            assert probe() == probe()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.slow  # imports torch twice more
def test_the_probe_sees_an_instruction_set() -> None:
    script = "from adpur.judging.arithmetic import in_use; import torch; print(in_use(torch.device('cpu'), []))"
    least = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    argv = [sys.executable, "-c", script]
    told = [
        subprocess.run(argv, env=os.environ | more, capture_output=True, text=True).stdout
        for more in ({}, least)
    ]
    if "'DEFAULT'" not in told[0]:
        assert "'DEFAULT'" in told[1] and eval(told[0])["bits"] != eval(told[1])["bits"]
