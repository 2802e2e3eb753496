"""Exact against approximate gradients: a mode that agrees, one that does not, and what a step does."""

from pathlib import Path

import pytest
import torch
from problems import LinearClassifier, WavyDenoiser, images

from adpur import (
    BPDA,
    PGD,
    Constant,
    Defense,
    Diffusion,
    Exact,
    Identity,
    Networks,
    Noise,
    Purifier,
    Strided,
    Substitute,
)
from adpur.analyse.agreement import Agreement, Images, agreement, main
from adpur.judge import Bench
from adpur.trial import Block, Trial


def asked(trial: Trial, eps: float = 0.1) -> Agreement:
    x = images(6, torch.float32)
    y = trial.defense.networks.classifier(x).argmax(1)
    given = Images(x, y, Noise(torch.arange(6)))
    return agreement(Block("row", "block", trial, (eps,)), eps, given, Bench(4, 1), 2)


def defense(purifier: Purifier) -> Defense:
    return Defense(purifier, Networks(LinearClassifier(), WavyDenoiser()), 8)


def test_the_exact_gradient_agrees_with_itself() -> None:
    found = asked(Trial(defense(Diffusion(Constant(60), Strided(30))), PGD(), Exact()))
    assert found.cosine == pytest.approx(1, abs=1e-6) and found.signs == 1.0
    assert found.success == found.exact > 0


def test_another_gradient_agrees_as_far_as_it_does() -> None:
    deployed = defense(Diffusion(Constant(60), Strided(30)))
    bpda = asked(Trial(deployed, PGD(), BPDA()))
    assert 0.5 < bpda.cosine < 1 and 0.5 < bpda.signs <= 1
    assert bpda.exact == asked(Trial(deployed, PGD(), Exact())).exact
    other = asked(Trial(deployed, PGD(), Substitute(Diffusion(Constant(300), Strided(300)))))
    assert other.cosine < bpda.cosine


def test_success_is_of_what_was_right() -> None:
    """On a linear model, a step of the whole range breaks all that it can; one of none, nothing."""
    trial = Trial(defense(Identity()), PGD(), Exact(), random=False)
    assert asked(trial, 0.0).success == 0.0
    assert asked(trial, 1.0).success == 1.0


CONFIG = """
model:
  class_path: adpur.Evaluation
  init_args:
    networks: {default: {class_path: adpur.pretrained, init_args: {classifier: digits/classifier}}}
    defenses: {bare: {purifier: {class_path: adpur.Identity}}}
    draws: 2
data: {class_path: adpur.Digits, init_args: {limit: 4}}
trainer:
  accelerator: cpu
  callbacks:
    - {class_path: adpur.Robustness, init_args: {name: pgd, attack: {class_path: adpur.PGD}, eps: [0.1, 0.3]}}
    - {class_path: adpur.Robustness, init_args: {name: moved, attack: {class_path: adpur.StAdv}, gradient: {class_path: adpur.BPDA}}}
"""


def test_a_config_is_asked_block_by_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(CONFIG)
    main(["-c", str(tmp_path / "c.yaml"), "--copies=1", "--csv", str(tmp_path / "a.csv")])
    printed = capsys.readouterr().out
    assert "| bare | pgd | Exact | Linf 0.3 | 1.000 | 100.00 |" in printed
    assert "| bare | moved | BPDA | Flow 0.05 | 1.000 | 100.00 |" in printed  # nothing to purify
    first, *rest = (tmp_path / "a.csv").read_text().splitlines()
    assert first.startswith("row,block,gradient,norm,eps,images,cosine") and len(rest) == 2
