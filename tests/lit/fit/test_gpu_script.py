"""The script of an afternoon on a GPU: every command it gives is one that adpur takes."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from cifar import tiny_cifar_weights

from adpur import CifarResNet

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "half_hour.sh"


def told(folder: Path) -> list[list[str]]:
    """What the script asks of `adpur`, without doing any of it."""
    fake = folder / "bin" / "adpur"
    fake.parent.mkdir()
    fake.write_text('#!/bin/bash\nmkdir -p "$OUT"\nprintf "%s\\n" "$@" "" >> words\n')
    fake.chmod(0o755)
    env = os.environ | {"PATH": f"{fake.parent}:{os.environ['PATH']}", "OUT": "out"}
    subprocess.run(["bash", str(SCRIPT)], cwd=folder, env=env, check=True)
    return [block.split("\n") for block in (folder / "words").read_text().strip().split("\n\n")]


def test_its_commands_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from adpur.cli.run import parse

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADPUR_CIFAR10", "unread")
    monkeypatch.setenv("ADPUR_CIFAR10_CLASSIFIER", str(tmp_path / "net.th"))
    torch.save({"state_dict": CifarResNet(blocks=1).state_dict()}, tmp_path / "net.th")
    tiny_cifar_weights(tmp_path / "out" / "weights")
    diffusion, hardening, table = (
        parse(words[0], [*words[1:], "--trainer.logger=false"]) for words in told(tmp_path)
    )
    assert sum(p.numel() for p in diffusion.model.parameters()) < 8e6
    assert hardening.trainer.max_epochs == 100 and hardening.datamodule.batch_size == 128
    assert set(table.model.defenses) >= {"undefended", "diffpure", "ssni-n", "addt"}
    assert table.datamodule.choice.count == 256
