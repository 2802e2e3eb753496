"""`adpur analyse` in a folder of its own, on shipped digits weights."""

import csv
from pathlib import Path

import pytest
from pictures import colour

from adpur.cli import main

NETWORKS = """
model:
  class_path: adpur.Evaluation
  init_args:
    networks:
      default:
        class_path: adpur.pretrained
        init_args: {classifier: digits/classifier, denoiser: digits/diffusion}
"""
"""The head of a test config, up to its other networks or its defenses."""


def analysed(
    words: list[str], config: str, capsys: pytest.CaptureFixture[str]
) -> tuple[Path, list[dict[str, str]]]:
    """The figure, and the lines of its table, of `small.yaml` in the working folder."""
    Path("small.yaml").write_text(config)
    assert main(["analyse", words[0], "-c", "small.yaml", *words[1:]]) == 0
    drawn, table = (Path(line) for line in capsys.readouterr().out.split())
    assert drawn.stem == table.stem == f"{words[0]}-small"
    with table.open(newline="") as stream:
        return drawn, list(csv.DictReader(stream))


def in_colour(drawn: Path) -> bool:
    """Whether a figure shows any data."""
    return colour(drawn) > 0.001
