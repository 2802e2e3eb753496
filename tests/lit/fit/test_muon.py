"""Muon against its formula, and a fit that it drives."""

from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from toy import in_child, trainer

from adpur import (
    EMA,
    Annealing,
    ClassifierTraining,
    ConfigError,
    DiffusionTraining,
    Digits,
    First,
    LastCheckpoint,
    Muon,
    PurifiedAccuracy,
    SampleGrid,
    ScoreNorm,
    ddpm,
    load_classifier,
    load_denoiser,
    pretrained,
    reference,
)
from adpur.models.checkpoints.fingerprint import fingerprint

pytestmark = pytest.mark.usefixtures("forks")
LEAN = {"sample_size": 8, "in_channels": 1, "widths": [8, 16], "blocks": [1, 1], "groups": 4}


def test_a_step_is_the_nearest_orthogonal_matrix_to_the_momentum() -> None:
    """Newton-Schulz leaves singular values between 0.7 and 1.2: directions are exact, sizes near."""
    gen = torch.Generator().manual_seed(0)
    kernel = torch.nn.Parameter(torch.randn(8, 3, 2, 2, generator=gen))
    start, grads = kernel.detach().clone(), torch.randn(2, 8, 3, 2, 2, generator=gen)
    optimizer = Muon([kernel], lr=0.1, momentum=0.5)
    average = torch.zeros(8, 12)
    for grad in grads:
        before = kernel.detach().clone()
        kernel.grad = grad.clone()
        optimizer.step()
        average = 0.5 * average + 0.5 * grad.flatten(1)
        ahead = 0.5 * grad.flatten(1) + 0.5 * average
        u, _, v = torch.linalg.svd(ahead, full_matrices=False)
        moved = (before - kernel.detach()).flatten(1) / (0.1 * 0.2 * 12**0.5)
        singular = torch.linalg.svdvals(u.T @ moved @ v.T)
        assert singular.min() > 0.6 and singular.max() < 1.3
        away = u.T @ moved @ v.T - torch.diag(torch.diag(u.T @ moved @ v.T))
        assert away.abs().max() < 1e-3
    assert not torch.equal(start, kernel)


def test_what_is_no_kernel_is_adamw_s() -> None:
    """Bit for bit, beside kernels; a kernel's norm is kept where that is asked for."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.Flatten(), torch.nn.Linear(8, 2))
    other = [p.detach().clone().requires_grad_() for p in (net[0].bias, *net[2].parameters())]
    muon = Muon(net.parameters(), unit_norm=True, rest_lr=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    adamw = torch.optim.AdamW(other, 0.01, (0.8, 0.9), weight_decay=0.1)
    for _ in range(3):
        loss = net(torch.randn(4, 1, 3, 3)).square().sum()
        muon.zero_grad()
        loss.backward()
        for copy, p in zip(other, (net[0].bias, *net[2].parameters()), strict=True):
            copy.grad = p.grad.clone()
        muon.step()
        adamw.step()
    assert all(
        torch.equal(a, b) for a, b in zip(other, (net[0].bias, *net[2].parameters()), strict=True)
    )
    assert net[0].weight.norm().item() == pytest.approx(8**0.5, rel=1e-6)


@pytest.mark.parametrize("wrong", [{"scale": "none"}, {"momentum": 1.0}, {"steps": 0}])
def test_muon_refuses(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="Muon"):
        Muon([torch.nn.Parameter(torch.ones(8, 1, 1, 1))], **wrong)


def test_a_learning_rate_rises_and_falls() -> None:
    cosine = Annealing("cosine", 2)
    assert cosine.factor(0, 10) == 0.5 and cosine.factor(10, 10) == 0
    assert cosine.factor(5, 10) == pytest.approx(0.5)
    assert [Annealing("linear").factor(k, 4) for k in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert Annealing("constant", 4).factor(1, float("inf")) == 0.5
    with pytest.raises(ConfigError, match="warmup"):
        Annealing(warmup=-1)


def diffusion(folder: Path) -> DiffusionTraining:
    return DiffusionTraining(
        str(folder / "weights"), LEAN, "LeanUNet", warmup=2, max_time=200, optimizer=Muon,
        channels_last=True, half=True, score_norms=[ScoreNorm(20, 2)],
    )  # fmt: skip


class Interrupt(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):  # type: ignore[no-untyped-def]
        if trainer.global_step == 3:
            raise KeyboardInterrupt


def fit(folder: Path, *extra: pl.Callback) -> pl.Trainer:
    purified = PurifiedAccuracy({"t50": ddpm(50, 10)}, pretrained("digits/classifier"), 32, rows=16)
    kept = LastCheckpoint(str(folder))
    made = trainer(folder, [EMA(0.9), purified, kept, *extra], max_steps=6, val_check_interval=2,
                   num_sanity_val_steps=0, log_every_n_steps=1, enable_checkpointing=True)  # fmt: skip
    last = folder / "last.ckpt"
    data = Digits(batch_size=128, validation=First(64))
    resume = str(last) if last.is_file() else None
    made.fit(diffusion(folder), data, ckpt_path=resume, weights_only=True)
    return made


def test_a_lean_fit_resumes_exactly_and_is_written_in_half_precision(tmp_path: Path) -> None:
    """Muon's momentum, channels last, limited times: interrupted before its fourth step."""

    def interrupted() -> None:
        with pytest.raises(SystemExit):
            fit(tmp_path / "b", Interrupt())

    assert in_child(interrupted) == 0
    assert not (tmp_path / "b/weights").exists()
    made = fit(tmp_path / "a")
    fit(tmp_path / "b")
    name = "weights/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    back = load_denoiser(tmp_path / "a/weights")
    assert back.max_time == 200
    assert all(p.is_contiguous() for p in back.parameters())
    assert reference(str(tmp_path / "a/weights"), 20, 2).scorer == fingerprint(back)
    logged = made.callback_metrics
    assert {"val/eps_mse_t75", "val/eps_mse_t200", "val/purified_acc_t50"} <= set(logged)
    assert "val/eps_mse_t500" not in logged and 0 <= logged["val/purified_acc_t50"] <= 1


def test_a_fit_of_limited_times_refuses_samples(tmp_path: Path) -> None:
    made = trainer(tmp_path, [SampleGrid(4, stride=100)], max_steps=1)
    with pytest.raises(ConfigError, match="drawing samples asks the diffusion model at t = 1000"):
        made.fit(diffusion(tmp_path), Digits())
    with pytest.raises(ConfigError, match="horizon 20 asks the diffusion model at t = 20"):
        DiffusionTraining("x", LEAN, "LeanUNet", max_time=10, score_norms=[ScoreNorm(20, 2)])
    for wrong in (0, -1, 1001):
        with pytest.raises(ConfigError, match="max_time"):
            DiffusionTraining("x", LEAN, "LeanUNet", max_time=wrong)


def test_a_whitened_classifier_learns_and_comes_back(tmp_path: Path) -> None:
    arguments = {"widths": [16, 32], "in_channels": 1}
    module = ClassifierTraining(
        str(tmp_path / "weights"), "WhitenedConvNet", arguments, (1, 8, 8), label_smoothing=0.2,
        annealing=Annealing("linear"), channels_last=True, half=True,
        optimizer=lambda p: Muon(p, lr=0.1, momentum=0.6, steps=3, scale="original", unit_norm=True),
    )  # fmt: skip
    first = module.classifier.net.whiten.weight.clone()
    made = trainer(tmp_path, [], max_epochs=3)
    made.fit(module, Digits(batch_size=64))
    assert made.callback_metrics["val/acc"] > 0.7
    back = load_classifier(tmp_path / "weights").eval()
    # from the images, and not trained
    assert not torch.allclose(first, back.net.whiten.weight)
    assert torch.allclose(module.classifier.net.whiten.weight, back.net.whiten.weight, atol=1e-2)
    x, y, _ = Digits().stacked("validation")
    accuracy = (back(x).argmax(1) == y).float().mean()
    assert torch.isclose(accuracy, made.callback_metrics["val/acc"], atol=0.02)
