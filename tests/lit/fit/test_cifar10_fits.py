"""The four CIFAR-10 configs one after the other, 20 steps each, with small networks."""

import os
from pathlib import Path

import pytest

from adpur.cli import main
from adpur.lit.data import published
from adpur.report.table import read_run
from adpur.shipped import resolve_config

SMALL = {
    "classifier_cifar10_full": ["--model.arguments={depth: 10, widen: 1}"],
    "diffusion_cifar10_full": [
        "--model.unet.block_out_channels=[8, 16]",
        "--model.unet.down_block_types=[DownBlock2D, DownBlock2D]",
        "--model.unet.up_block_types=[UpBlock2D, UpBlock2D]",
        "--model.unet.norm_num_groups=8",
        "--model.unet.layers_per_block=1",
    ],
    "addt_cifar10_full": ["--data.batch_size=16"],
}


@pytest.mark.slow
@pytest.mark.skipif("ADPUR_CIFAR10" not in os.environ, reason="ADPUR_CIFAR10 is not set")
def test_each_makes_what_the_next_one_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the real images; samples and attacks of fewer steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(published, "VALIDATION", 20)
    for name, words in SMALL.items():
        _cut(name)
        assert main(["fit", "-c", name, "--trainer.max_steps=20", "--trainer.accelerator=cpu",
                     "--trainer.check_val_every_n_epoch=1", "--trainer.limit_train_batches=20",
                     "--data.workers=0", *words]) == 0  # fmt: skip
    assert list((tmp_path / "runs/addt_cifar10_full/figures").glob("search-*.png"))
    _cut("ssni_eval_full")
    assert (
        main(["test", "-c", "ssni_eval_full", "--trainer.accelerator=cpu", "--data.limit=4"]) == 0
    )
    rows = {column.row for column in read_run(tmp_path / "runs/ssni_eval_full").outcomes}
    assert rows == {"undefended", "diffpure", "ssni-n", "addt", "addt-ssni-n"}


def _cut(name: str) -> None:
    """The config under its own name in this folder, with shorter samples, searches and attacks."""
    text = Path(resolve_config(name)).read_text()
    for long, short in {
        "steps: 20": "steps: 2", "eot: 10": "eot: 2", "t: 100}": "t: 100, stride: 50}",
        "stride: 10}": "stride: 50}", "draws: 10": "draws: 2\n    trust: none",
        "adpur.FrechetDistance": "adpur.FrechetDistance\n      init_args: {stride: 250}",
    }.items():  # fmt: skip
        text = text.replace(long, short)
    Path(f"{name}.yaml").write_text(text)
