"""Fit stages: exact mid-epoch resume, averaged weights, export, and what it feeds."""

import os
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from toy import in_child, trainer
from unet import UNET

from adpur import (
    ClassifierTraining,
    DiffusionTraining,
    Digits,
    SampleGrid,
    ScoreNorm,
    load_classifier,
    load_denoiser,
    reference,
)
from adpur.cli import main
from adpur.lit.data.loaders import ResumableLoader
from adpur.models.checkpoints.fingerprint import fingerprint

pytestmark = pytest.mark.usefixtures("forks")


def diffusion(folder: Path, **kwargs: Any) -> DiffusionTraining:
    unet = UNET | {"dropout": 0.2}
    return DiffusionTraining(str(folder / "weights"), unet, lr=1e-3, warmup=2, **kwargs)


class Kill(pl.Callback):
    """`kill -9` before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, module, batch, batch_idx):  # type: ignore[no-untyped-def]
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(folder: Path, module: pl.LightningModule, *extra: pl.Callback) -> pl.Trainer:
    """Two epochs of four batches, going on from the last checkpoint if there is one."""
    kept = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1)
    callbacks = [EMAWeightAveraging(decay=0.9), SampleGrid(4, stride=100), kept, *extra]
    made = trainer(folder, callbacks, max_epochs=2, enable_checkpointing=True,
                   limit_val_batches=1, num_sanity_val_steps=0, log_every_n_steps=1)  # fmt: skip
    last = folder / "last.ckpt"
    resume = str(last) if last.is_file() else None
    made.fit(module, Digits(batch_size=256), ckpt_path=resume, weights_only=True)
    return made


def test_a_killed_fit_resumes_mid_epoch_to_the_same_bits(tmp_path: Path) -> None:
    """Killed before its fourth and its eighth step; with dropout, EMA and a schedule."""
    a, b = tmp_path / "a", tmp_path / "b"
    straight, resumed = diffusion(a), diffusion(b)
    fit(a, straight)
    for step in (3, 7):
        assert in_child(lambda step=step: fit(b, diffusion(b), Kill(step))) == -signal.SIGKILL
        assert not (b / "weights").exists()
    fit(b, resumed)
    for (name, one), two in zip(
        straight.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name
    pictures = [sorted((f / "samples").iterdir()) for f in (a, b)]
    assert [p.name for p in pictures[0]] == ["0000004.png", "0000008.png"]
    assert [p.read_bytes() for p in pictures[0]] == [p.read_bytes() for p in pictures[1]]
    weights = "weights/unet/diffusion_pytorch_model.safetensors"
    assert (a / weights).read_bytes() == (b / weights).read_bytes()


def test_export_is_the_averaged_network_with_its_score_norms(tmp_path: Path) -> None:
    module = diffusion(tmp_path, score_norms=[ScoreNorm(20, 2)])
    made = fit(tmp_path, module)
    found = load_denoiser(tmp_path / "weights")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    averaged, live = state["state_dict"], state["current_model_state"]
    name = "denoiser.net.unet.conv_in.weight"
    assert not torch.equal(averaged[name], live[name])
    exported = found.state_dict()["net.unet.conv_in.weight"]
    assert torch.equal(exported, module.state_dict()[name])
    assert not torch.equal(exported, live[name])
    saved = reference(str(tmp_path / "weights"), 20, 2)
    assert saved.count == 288 and saved.scorer == fingerprint(found)
    assert saved.low < saved.mean < saved.high and saved.sd > 0
    assert set(made.callback_metrics) >= {"val/eps_mse_t100", "train/loss"}


def test_a_classifier_learns_and_comes_back(tmp_path: Path) -> None:
    arguments = {"blocks": 1, "in_channels": 1}
    export = str(tmp_path / "weights")
    module = ClassifierTraining(export, arguments=arguments, shape=(1, 8, 8), noise=0.1)
    made = trainer(tmp_path, [], max_epochs=3)
    made.fit(module, Digits(batch_size=64))
    assert made.callback_metrics["val/acc"] > 0.5
    x, y, _ = Digits().stacked("validation")
    accuracy = (load_classifier(export).eval()(x).argmax(1) == y).float().mean()
    assert torch.isclose(accuracy, made.callback_metrics["val/acc"])


def test_the_loader_is_a_function_of_seed_epoch_and_place() -> None:
    data = Digits().split("validation")

    def epochs(loader: ResumableLoader, count: int) -> list[list[int]]:
        return [[i for _, _, index in loader for i in index.tolist()] for _ in range(count)]

    whole = epochs(ResumableLoader(data, 64, seed=3), 2)
    assert len(set(whole[0])) == 256 and whole[0] != whole[1]
    assert epochs(ResumableLoader(data, 64, seed=3), 2) == whole
    assert epochs(ResumableLoader(data, 64, seed=4), 1) != whole[:1]
    parts = [epochs(ResumableLoader(data, 32, seed=3, rank=r, world=2), 1)[0] for r in (0, 1)]
    assert set(parts[0]) | set(parts[1]) == set(whole[0]) and not set(parts[0]) & set(parts[1])


@pytest.mark.parametrize("batches", [1, 3, 4, 5])
def test_the_loader_starts_anywhere(batches: int) -> None:
    data = Digits().split("validation")
    loader = ResumableLoader(data, 64, seed=3)
    straight = [b[2].tolist() for _ in range(3) for b in loader]
    later = ResumableLoader(data, 64, seed=3, given=batches)
    assert [b[2].tolist() for _ in range(2) for b in later] == straight[
        batches : 8 + 4 * (batches > 3)
    ]


@pytest.mark.slow
def test_the_shipped_weights_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two documented commands, into stated bands; about five minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(["fit", "-c", "classifier_digits", "--trainer.enable_progress_bar=false"]) == 0
    assert main(["fit", "-c", "diffusion_digits", "--trainer.enable_progress_bar=false"]) == 0
    x, y, _ = Digits().stacked("test")
    classifier = load_classifier("runs/weights/digits/classifier").eval()
    assert (classifier(x).argmax(1) == y).float().mean() > 0.95
    metrics = Path("runs/diffusion_digits/logs/version_0/metrics.csv").read_text().splitlines()
    names, values = metrics[0].split(","), [line.split(",") for line in metrics[1:]]
    column = names.index("val/eps_mse_t100")
    last = [float(v[column]) for v in values if v[column]][-1]
    assert 0.20 < last < 0.26
    assert 60 < reference("runs/weights/digits/diffusion", 20, 5).mean < 95
