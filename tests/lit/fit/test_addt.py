"""ADDT and adversarial training as real fits."""

import re
import shlex
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from cifar import tiny_cifar_weights
from diffusers.training_utils import EMAModel
from torch import nn
from torch.optim.swa_utils import AveragedModel
from toy import trainer
from unet import UNET

import adpur
from adpur import (
    ADDT,
    CGPO,
    EMA,
    ClassifierTraining,
    Clean,
    ConfigError,
    Digits,
    DiscreteVP,
    EpsDenoiser,
    ImagePGD,
    LinfNoise,
    Networks,
    Noise,
    Perturbation,
    Weight,
    load_classifier,
    load_denoiser,
    pretrained,
)
from adpur.diffusion.adapters import DiffusersNet
from adpur.judging.statistics import mcnemar
from adpur.keyed.noise import Source
from adpur.lit.fit.diffusion import DiffusionTraining
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.models.checkpoints.zoo import build_unet

STRONG = CGPO(weight=Weight(0.19, 0, 0.8))


def nets(dropout: float = 0.0) -> Networks:
    torch.manual_seed(0)
    net = build_unet(UNET | {"dropout": dropout})
    return Networks(load_classifier("digits/classifier"),
                    EpsDenoiser(DiffusersNet(net), DiscreteVP(), (1, 8, 8)))  # fmt: skip


def fit(folder: Path, module: pl.LightningModule, steps: int = 4, *extra: pl.Callback) -> Any:
    made = trainer(folder, [*extra], max_steps=steps, max_epochs=9, limit_val_batches=1, val_check_interval=2,
                   num_sanity_val_steps=0, log_every_n_steps=1)  # fmt: skip
    made.fit(module, Digits(batch_size=16))
    return made


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5))


def test_ema_is_diffusers() -> None:
    """The released form: inv_gamma 1, power 3/4, at most `decay`."""
    for decay, power in ((0.9999, 0.75), (0.3, 0.75)):
        ours, averaged = EMA(decay, power), torch.zeros(5)
        live = Bare()
        theirs = EMAModel([live.weight], decay, use_ema_warmup=True, inv_gamma=1.0, power=power)
        for k in range(6):
            live.weight.data = torch.randn(5, generator=torch.Generator().manual_seed(k))
            theirs.step([live.weight])
            if k == 0:
                averaged = live.weight.detach().clone()  # AveragedModel copies at the first update
            else:
                ours._average([averaged], [live.weight.detach()], torch.tensor(k))
            assert torch.allclose(averaged, theirs.shadow_params[0], atol=1e-6)
    with pytest.raises(ConfigError, match="decay"):
        EMA(decay=1.0)


def test_ema_counts_the_batches_of_batch_norm_and_averages_its_statistics() -> None:
    live, average = nn.BatchNorm2d(2), EMA(0.5, power=None)._average
    averaged = AveragedModel(live, multi_avg_fn=average, use_buffers=True)
    for k in range(3):
        live(torch.full((4, 2, 3, 3), float(k)))
        averaged.update_parameters(live)
    assert averaged.module.num_batches_tracked == live.num_batches_tracked == 3
    wanted = 0.5 * (0.5 * 0 + 0.5 * 0.1) + 0.5 * 0.29  # running means 0, 0.1, 0.29
    assert torch.allclose(averaged.module.running_mean, torch.full((2,), wanted))


def test_a_fit_trains_the_diffusion_model_alone(tmp_path: Path) -> None:
    networks = nets(dropout=0.2)
    before = {k: v.clone() for k, v in networks.state_dict().items()}
    ema = EMA(0.5)
    module = ADDT(str(tmp_path / "w"), networks, STRONG)
    made = fit(tmp_path, module, 4, ema)
    state = networks.state_dict()
    moved = {k.split(".")[0] for k, v in state.items() if not torch.equal(v, before[k])}
    assert moved == {"_denoiser", "_scorer"}  # one network by two names
    assert all(p.grad is None for p in networks.classifier.parameters())
    assert not [k for k in module.state_dict() if "classifier" in k or "guide" in k]
    exported = load_denoiser(tmp_path / "w")
    assert ema._average_model is not None
    averaged = ema._average_model.module.denoiser
    assert fingerprint(exported) == fingerprint(averaged.eval())
    assert ema._average_model.module.guide is module.guide  # lent, not copied
    wanted = {"train/loss", "cgpo/first", "cgpo/last", "val/eps_mse_t100"}
    assert wanted | {f"train/loss_quarter{k}" for k in (1, 2, 3, 4)} <= set(made.logged_metrics)
    assert made.logged_metrics["cgpo/last"] > 0


def test_clean_fine_tuning_is_diffusion_training(tmp_path: Path) -> None:
    """The same loss, from x0_hat and from eps_hat, on the same keys."""
    networks = nets()
    addt = ADDT(str(tmp_path), networks, Clean(), seed=3)
    plain = DiffusionTraining(str(tmp_path), UNET, seed=3)
    plain.denoiser = addt.denoiser
    addt._report = lambda *args: None  # type: ignore[method-assign]
    batch = tuple(part[:16] for part in Digits().stacked("train"))
    noise = Noise(batch[2], 3, Source.TRAIN)
    with torch.no_grad():
        one, two = addt.loss(batch, noise), plain.loss(batch, noise)  # type: ignore[arg-type]
    assert torch.allclose(one, two, rtol=1e-4)


@pytest.mark.parametrize("perturbation", [STRONG, LinfNoise(ImagePGD(0.2, 0.1))], ids=str)
def test_training_lowers_the_loss_it_is_about(tmp_path: Path, perturbation: Perturbation) -> None:
    """15 steps on one batch, from the shipped model."""
    torch.manual_seed(0)
    networks = pretrained("digits/classifier", "digits/diffusion")
    module = ADDT(str(tmp_path), networks, perturbation, lr=1e-3)
    module._report = lambda *args: None  # type: ignore[method-assign]
    batch: Any = tuple(part[:16] for part in Digits().stacked("train"))
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
    losses = []
    for step in range(15):
        loss = module.loss(batch, Noise(batch[2], 0, Source.TRAIN, iteration=step % 3))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


def test_dropout_is_on_and_can_be_set(tmp_path: Path) -> None:
    module = ADDT(str(tmp_path), nets(dropout=0.3), STRONG, dropout=0.1)
    layers = [m for m in module.denoiser.modules() if isinstance(m, nn.Dropout)]
    assert layers and all(m.p == 0.1 and m.training for m in layers)


def test_adversarial_training_hardens_a_classifier(tmp_path: Path) -> None:
    """Three epochs each, on Linf 0.1 PGD or on clean images; then attacked at 0.15, image by image.

    Trained weights differ between instruction sets and thread counts. Over 4 seeds, 3 and 6 epochs,
    scalar and AVX2 kernels and 1 and 2 threads the hardened network was right on 93 to 138 more of
    the 288 images (at 0.1 on as few as 50), which by McNemar's test is p < 1e-19 at worst.
    """

    def trained(adversary: ImagePGD | None) -> Any:
        export = str(tmp_path / ("at" if adversary else "plain"))
        arguments = {"blocks": 1, "in_channels": 1}
        module = ClassifierTraining(
            export, arguments=arguments, shape=(1, 8, 8), noise=0.1, adversary=adversary
        )
        made = trainer(tmp_path, [], max_epochs=3, limit_val_batches=0)
        made.fit(module, Digits(batch_size=64))
        return load_classifier(export).eval()

    x, y, index = Digits().stacked("validation")
    attack, right = ImagePGD(0.15, 0.03, 10), []
    for adversary in (ImagePGD(0.1, 0.05, 4), None):
        net = trained(adversary)
        adversarial = attack.against(net, x, y, Noise(index))
        right.append((net(adversarial).argmax(1) == y).numpy())
    saved, lost, p = mcnemar(*right)
    assert saved > lost
    assert p < 1e-6


def test_every_ablation_of_the_docs_is_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adpur.cli.run import parse

    monkeypatch.chdir(tmp_path)
    tiny_cifar_weights(tmp_path / "runs/weights/cifar10_full")
    text = (Path(adpur.__file__).parents[1] / "docs/train.md").read_text()
    lines = re.findall(r"^adpur fit (-c \w+ --model\S.*?)(?: #.*)?$", text, re.M)
    assert len(lines) >= 10
    made = [parse("fit", [*shlex.split(line), "--trainer.logger=false"]).model for line in lines]
    searches = {repr(getattr(m, "perturbation", getattr(m, "adversary", None))) for m in made}
    assert len(searches) >= len(lines) - 1  # one line changes the objective
