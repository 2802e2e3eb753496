"""Fit stages: exact mid-epoch resume, averaged weights, export, and what it feeds."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from test_zoo import UNET
from toy import trainer

from adpur import (
    ClassifierTraining,
    DiffusionTraining,
    Digits,
    ScoreNorm,
    load_classifier,
    load_denoiser,
    reference,
)
from adpur.cli import main
from adpur.lit.data.base import ResumableLoader


def diffusion(folder: Path, **kwargs: Any) -> DiffusionTraining:
    unet = UNET | {"dropout": 0.2}
    return DiffusionTraining(str(folder / "weights"), unet, lr=1e-3, warmup=2, **kwargs)


def fit(folder: Path, module: pl.LightningModule, steps: int, **kwargs: Any) -> pl.Trainer:
    data = Digits(batch_size=256)
    kept = ModelCheckpoint(folder, save_last=True, every_n_train_steps=3)
    callbacks = [EMAWeightAveraging(decay=0.9), kept]
    made = trainer(folder, callbacks, max_epochs=2, max_steps=steps, enable_checkpointing=True,
                   limit_val_batches=1, num_sanity_val_steps=0, log_every_n_steps=1)  # fmt: skip
    made.fit(module, data, weights_only=True, **kwargs)
    return made


def test_a_resumed_fit_equals_an_uninterrupted_one_mid_epoch(tmp_path: Path) -> None:
    """Four batches an epoch; stopped after three and after seven steps, dropout on."""
    straight = diffusion(tmp_path / "a")
    fit(tmp_path / "a", straight, steps=8)
    fit(tmp_path / "b", diffusion(tmp_path / "b"), steps=3)
    last = str(tmp_path / "b" / "last.ckpt")
    fit(tmp_path / "b", diffusion(tmp_path / "b"), steps=7, ckpt_path=last)
    resumed = diffusion(tmp_path / "b")
    fit(tmp_path / "b", resumed, steps=8, ckpt_path=str(tmp_path / "b" / "last.ckpt"))
    for (name, a), b in zip(
        straight.state_dict().items(), resumed.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_export_is_the_averaged_network_with_its_score_norms(tmp_path: Path) -> None:
    module = diffusion(tmp_path, score_norms=[ScoreNorm(20, 2)])
    made = fit(tmp_path, module, steps=4)
    found = load_denoiser(tmp_path / "weights")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    averaged, live = state["state_dict"], state["current_model_state"]
    name = "denoiser.net.unet.conv_in.weight"
    assert not torch.equal(averaged[name], live[name])
    exported = found.state_dict()["net.unet.conv_in.weight"]
    assert torch.equal(exported, module.state_dict()[name])
    assert not torch.equal(exported, live[name])
    saved = reference(str(tmp_path / "weights"), 20, 2)
    assert saved.count == 288 and saved.scorer == found.sha256
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


@pytest.mark.parametrize("batches", [1, 3, 4])
def test_the_loader_goes_on_where_it_stopped(batches: int) -> None:
    data = Digits().split("validation")
    loader = ResumableLoader(data, 64, seed=3)
    one = ResumableLoader(data, 64, seed=3)
    straight = [b[2].tolist() for _ in range(2) for b in one]
    taken = []
    for batch in loader:
        taken.append(batch[2].tolist())
        if len(taken) == batches:
            break
    other = ResumableLoader(data, 64, seed=3)
    other.load_state_dict(loader.state_dict())
    while len(taken) < 8:
        taken += [b[2].tolist() for b in other]
    assert taken == straight


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
    metrics = Path("runs/diffusion_digits/metrics.csv").read_text().splitlines()
    names, values = metrics[0].split(","), [line.split(",") for line in metrics[1:]]
    column = names.index("val/eps_mse_t100")
    last = [float(v[column]) for v in values if v[column]][-1]
    assert 0.20 < last < 0.26
    assert 60 < reference("runs/weights/digits/diffusion", 20, 5).mean < 95
