"""ADDT's figures from the command line, on shipped networks."""

from pathlib import Path

import pytest
from analysed import NETWORKS, analysed, in_colour

CONFIG = (
    NETWORKS
    + """\
      addt:
        class_path: adpur.pretrained
        init_args: {classifier: digits/classifier, denoiser: digits/addt}
    defenses:
      ddpm: {purifier: &ddpm {class_path: adpur.ddpm, init_args: {t: 40, stride: 20}}}
      addt: {purifier: *ddpm, network: addt}
    draws: 2
    rows: 8
data: {class_path: adpur.Digits, init_args: {limit: 4}}
trainer:
  accelerator: cpu
  callbacks:
    - class_path: adpur.Robustness
      init_args: {name: pgd, attack: {class_path: adpur.PGD, init_args: {eps: 0.2, steps: 2, eot: 2}}}
"""
)


@pytest.mark.parametrize(
    ("words", "rows", "column", "named"),
    [
        (["loss-landscape", "--points=2"], 2 * (4 + 2 * 3), "what",
         {"surface", "DW-box", "white-box (EOT)"}),
        (["trajectories", "--runs=1", "--image=1", "--rows=addt"], 3 * 3, "knowledge",
         {"DW-box", "white-box (EOT)", "white-box"}),
        (["knowledge-accuracy", "--strides=[20, 40]", "--rows=addt"], 2 * 4, "NFE",
         {"2.0", "1.0"}),
        (["eot-direction", "--copies=[1, 2]", "--rows=addt"], 2 * 3, "what",
         {"percent right", "cosine, gradients", "cosine, perturbations"}),
        (["semi-loss", "--pool=2", "--points=3", "--rows=addt"], 3 * 3, "perturbation",
         {"DW-box", "DW-semi-2", "random signs"}),
        (["rank-histograms", "--count=8", "--steps=1", "--rows=addt"], 3 * 32, "pixel",
         {"[1, 1]", "[2, 2]", "[4, 4]"}),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_a_figure_and_its_table(
    words: list[str], rows: int, column: str, named: set[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    drawn, told = analysed([*words, "--images=2"], CONFIG, capsys)
    assert in_colour(drawn)
    assert len(told) == rows and {row[column] for row in told} == named
    assert {row["row"] for row in told} == (
        {"addt"} if "--rows=addt" in words else {"ddpm", "addt"}
    )
