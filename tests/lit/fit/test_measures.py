"""What a fit measures of itself: equal to the same by hand, and without a trace on the fit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fits import addt, fit
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from unet import UNET

from adpur import (
    EMA,
    PGD,
    ClassifierTraining,
    ConfigError,
    Cost,
    Defense,
    DiffusionTraining,
    Digits,
    Exact,
    FrechetDistance,
    Networks,
    Noise,
    Oracle,
    RobustValidation,
    SampleGrid,
    SearchFigures,
    ddpm,
    fgsm,
    pretrained,
    replay,
)
from adpur.diffusion.sample import Sampler

pytestmark = pytest.mark.usefixtures("forks")

PURIFIER = ddpm(100, stride=50)
ATTACK = PGD(eps=0.2, steps=2, eot=1)
ROBUST: dict[str, Any] = {"purifier": PURIFIER, "attack": ATTACK, "images": 12, "rows": 8}


def by_hand(nets: Networks, count: int, seed: int = 0) -> tuple[float, float]:
    """Clean and robust accuracy under replay: oracle, attack, projection, prediction again."""
    x, y, index = (part[:count] for part in Digits().stacked("validation"))
    defense, noise = Defense(PURIFIER, nets, rows=8), Noise(index, seed)
    oracle = Oracle(defense, Exact().view(PURIFIER), y, noise, replay())
    found = ATTACK.norm.project(ATTACK.run(oracle, x), x, ATTACK.eps)
    keys = replay().evaluate(noise, 1)
    with torch.no_grad():
        logits = [defense(images, keys).logits for images in (x, found)]
    clean, robust = ((v.argmax(1) == y).float().mean().item() for v in logits)
    return clean, robust


# --- robust accuracy


def test_robust_validation_is_the_judges_number_of_the_averaged_network(tmp_path: Path) -> None:
    module = addt(tmp_path)
    made = fit(tmp_path, module, [EMA(0.5), RobustValidation(**ROBUST)], max_steps=2)
    guide = pretrained("digits/classifier").classifier
    clean, robust = by_hand(Networks(guide, module.denoiser), 12)  # EMA's weights by now
    told = made.callback_metrics
    assert told["val/clean_acc"] == pytest.approx(clean)
    assert told["val/robust_acc"] == pytest.approx(robust)
    assert 0 < robust < clean


def test_no_instrument_leaves_a_trace_on_the_fit(tmp_path: Path) -> None:
    """Bit for bit, with dropout and averaged weights."""
    frechet, robust = FrechetDistance(8, stride=500), RobustValidation(**ROBUST | {"images": 3})
    instruments = [Cost(), robust, frechet, SearchFigures(), SampleGrid(2, stride=500)]
    plain, watched = addt(tmp_path / "a"), addt(tmp_path / "b")
    fit(tmp_path / "a", plain, [EMA(0.5)])
    fit(tmp_path / "b", watched, [EMA(0.5), *instruments])
    for (name, one), two in zip(
        plain.state_dict().items(), watched.state_dict().values(), strict=True
    ):
        assert torch.equal(one, two), name


@pytest.mark.parametrize("made", [RobustValidation(**ROBUST), FrechetDistance(6, stride=500)])
def test_a_module_is_returned_as_it_was_lent(made: Any, tmp_path: Path) -> None:
    module = addt(tmp_path)
    module.denoiser.train()
    first = next(module.parameters())
    first.requires_grad_(False)
    for p in module.parameters():
        p.grad = torch.full_like(p, 2.0)
    before = [m.training for m in module.modules()]
    state = torch.random.get_rng_state()
    batch = tuple(part[:6] for part in Digits().stacked("validation"))
    made.setup(None, module, "fit")
    with torch.no_grad():
        made.measure(module, batch, torch.arange(6))
    assert not first.requires_grad and sum(not p.requires_grad for p in module.parameters()) == 1
    assert [m.training for m in module.modules()] == before
    assert all((p.grad == 2).all() for p in module.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_classifier_has_the_same_curve(tmp_path: Path) -> None:
    module = ClassifierTraining(
        str(tmp_path / "w"), arguments={"blocks": 1, "in_channels": 1}, shape=(1, 8, 8)
    )
    attack = fgsm(0.1, eot=1)
    made = fit(
        tmp_path,
        module,
        [RobustValidation(attack=attack, images=32)],
        max_steps=20,
        val_check_interval=20,
    )
    x, y, _ = (part[:32] for part in Digits().stacked("validation"))
    net = module.classifier.eval()
    images = x.clone().requires_grad_()
    nn.functional.cross_entropy(net(images), y).backward()
    found = (x + 0.1 * images.grad.sign()).clamp(0, 1)
    for name, seen in (("clean", x), ("robust", found)):
        told = made.callback_metrics[f"val/{name}_acc"]
        assert told == pytest.approx((net(seen).argmax(1) == y).float().mean().item())


def test_two_processes_see_what_one_sees(tmp_path: Path) -> None:
    """Whose images, and whose sums; a step of rate zero keeps the weights equal."""
    told = {}
    for processes in (1, 2):
        module = addt(tmp_path, lr=0.0, weight_decay=0.0)
        callbacks = [RobustValidation(**ROBUST | {"images": 9}), FrechetDistance(9, stride=500)]
        two = {"devices": 2, "strategy": "ddp_fork"} if processes == 2 else {}
        made = fit(tmp_path, module, callbacks, max_steps=1, val_check_interval=1, **two)
        told[processes] = {k: v.item() for k, v in made.callback_metrics.items() if "val" in k}
    for name in ("val/clean_acc", "val/robust_acc", "val/frechet_classifier"):
        assert told[1][name] == pytest.approx(told[2][name], rel=1e-5), name
    alone = by_hand(pretrained("digits/classifier", "digits/diffusion"), 9)
    assert [told[1][f"val/{k}_acc"] for k in ("clean", "robust")] == pytest.approx(alone)


def test_every_second_validation_also_after_a_resume(tmp_path: Path) -> None:
    def session(steps: int, ckpt: Path | None) -> list[int]:
        module, measured = addt(tmp_path), []
        robust = RobustValidation(**ROBUST | {"images": 2, "every": 2})
        plain = robust.found
        robust.found = lambda: measured.append(module.global_step) or plain()  # type: ignore
        saved = ModelCheckpoint(tmp_path, save_last=True, save_on_train_epoch_end=False)
        more = {"max_steps": steps, "val_check_interval": 1, "num_sanity_val_steps": 1}
        fit(tmp_path, module, [robust, saved], ckpt, **more)
        return measured

    assert session(3, None) == [2]  # the sanity check is no validation
    assert session(5, tmp_path / "last.ckpt") == [4]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RobustValidation(images=1), "images >= 2 and every >= 1, got 1, 1"),
        (lambda: FrechetDistance(weights=Path("no.pth")), "adpur.fid|not a file"),
        (lambda: Sampler(0), "1..1000, got 0"),
        (lambda: SearchFigures(top=0), "top must be positive"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_what_cannot_work_is_refused_before_the_first_step(tmp_path: Path) -> None:
    bare = DiffusionTraining(str(tmp_path), UNET)
    with pytest.raises(ConfigError, match=r"no classifier; write in the callback, networks"):
        fit(tmp_path, bare, [RobustValidation(PURIFIER)])
    with pytest.raises(ConfigError, match="not reachable"):
        fit(tmp_path, addt(tmp_path), [RobustValidation(ddpm(70, stride=20))])
    with pytest.raises(ConfigError, match="fit of a diffusion model"):
        fit(tmp_path, ClassifierTraining(str(tmp_path)), [FrechetDistance()])
    lent = RobustValidation(PURIFIER, images=2, networks=pretrained("digits/classifier"))
    lent.setup(None, bare, "fit")
    assert all(p.requires_grad for p in bare.parameters())
