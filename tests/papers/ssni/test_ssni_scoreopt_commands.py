"""The figures of SSNI and ScoreOpt through the command, on shipped digits weights."""

from pathlib import Path

import pytest
from analysed import NETWORKS, analysed, in_colour

from adpur.cli import main

CONFIG = (
    NETWORKS
    + """\
    defenses:
      bare: {purifier: {class_path: adpur.Identity}}
      ssni:
        purifier:
          class_path: adpur.ssni_n
          init_args: {weights: digits/diffusion, t: 40, stride: 20, tau: 1, relative: true, levels: 5}
      scoreopt: {purifier: {class_path: adpur.scoreopt_o, init_args: {sigma: 0.34, steps: 1}}}
    draws: 2
    select: 1
data: {class_path: adpur.Digits, init_args: {limit: 3}}
trainer:
  accelerator: cpu
  callbacks:
    - class_path: adpur.Robustness
      init_args:
        name: bpda
        attack: {class_path: adpur.PGD, init_args: {eps: 0.2, steps: 1, eot: 1}}
        gradient: {class_path: adpur.BPDA}
"""
)
CASES = {
    "level-strips": (["--rows=ssni", "--times=[0, 40]"], "measure", "t(x)", 3),
    "reweighting": ([], "name", "linear, b 0", 201),
    "tau-accuracy": (["--taus=[1, 30]"], "attack", "clean", 2),
    "bias-accuracy": (["--biases=[0, 20]"], "attack", "bpda", 2),
    "steps-accuracy": (["--steps=[1, 2]", "--objectives=[adpur.SR]"], "row", "scoreopt, SR", 4),
    "objective-weight": (["--weights=[1, 10]"], "row", "scoreopt, Anchored", 4),
    "eot-accuracy": (["--eot=[1, 2]"], "row", "ssni", 4),
    "gradient-agreement": (["--copies=1"], "measure", "success", 3),
}
"""Options, and how many lines of the table have a cell."""


@pytest.mark.parametrize("name", CASES)
def test_each_writes_its_figure_and_its_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options, heading, cell, count = CASES[name]
    drawn, rows = analysed([name, *options], CONFIG, capsys)
    assert in_colour(drawn)
    assert sum(row[heading] == cell for row in rows) == count


def test_a_wrong_block_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG)
    assert main(["analyse", "tau-accuracy", "-c", "small.yaml", "--blocks=[pgd]"]) == 2
    assert "row 'ssni' has no attack block 'pgd'; there is: bpda" in capsys.readouterr().err
