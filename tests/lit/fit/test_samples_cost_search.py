"""Samples, cost and the search of a fit, against formulas and by hand."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from fits import addt, fit, kept
from problems import GaussianDenoiser
from scipy.linalg import sqrtm
from torch import Tensor, nn
from wandb_files import read, settled

from adpur import (
    ADDT,
    VE,
    CifarResNet,
    Clean,
    ConfigError,
    Cost,
    Digits,
    DiscreteVP,
    EDMDenoiser,
    FrechetDistance,
    LinearVP,
    NCSNpp,
    Networks,
    Noise,
    SampleGrid,
    SearchFigures,
    pretrained,
)
from adpur.addt.perturbation import Mixture
from adpur.addt.tally import BINS, Tally, ranks_at
from adpur.cli.run import parse
from adpur.diffusion.sample import Sampler
from adpur.lit.fit import cost
from adpur.lit.logging.loggers import AutoWandbLogger, log_counts
from adpur.models.features import Penultimate

# --- samples


def test_frechet_distance_is_its_formula(tmp_path: Path) -> None:
    module = addt(tmp_path, lr=0.0, weight_decay=0.0)
    made = fit(
        tmp_path, module, [FrechetDistance(20, stride=250)], max_steps=1, val_check_interval=1
    )
    nets = pretrained("digits/classifier", "digits/diffusion")
    x = Digits().stacked("validation")[0][:20]
    drawn = Sampler(250).draw(nets.denoiser, Noise(torch.arange(20)), x, 64).clamp(0, 1)
    with torch.no_grad():
        a, b = (Penultimate(nets.classifier)(v).double().numpy() for v in (x, drawn))
    p, q = np.cov(a.T), np.cov(b.T)
    mean = np.square(a.mean(0) - b.mean(0)).sum()
    want = mean + np.trace(p + q - 2 * np.real(sqrtm(p @ q)))
    assert made.callback_metrics["val/frechet_classifier"].item() == pytest.approx(want, rel=1e-3)


def test_penultimate_features_make_the_logits() -> None:
    net, x = CifarResNet(blocks=1, in_channels=1).eval(), torch.rand(3, 1, 8, 8)
    assert torch.equal(net.linear(Penultimate(net)(x)), net(x))
    for other in (nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.ReLU())):
        with pytest.raises(ConfigError, match="linear"):
            Penultimate(other)(x)


def test_samples_have_the_law_of_ddpm_on_every_schedule() -> None:
    """x_0 ~ N(0.1, 0.02): each step is linear, so its variance is known; equal on each schedule."""
    noise, like = Noise(torch.arange(256)), torch.zeros(1, dtype=torch.float64)
    drawn = []
    for schedule in (DiscreteVP(), LinearVP(), VE()):
        net = GaussianDenoiser(0.1, 0.02, schedule)
        drawn.append(2 * Sampler(50).draw(net, noise, like, 64) - 1)
    for x in drawn:
        assert x.mean().item() == pytest.approx(0.1, abs=0.01)
        assert x.var().item() == pytest.approx(_variance(0.02, 50), rel=0.06)
        assert (x - drawn[0]).abs().max() < 0.01
    alone = Sampler(50).draw(GaussianDenoiser(0.1, 0.02), noise[7:8], like, 64)
    assert torch.equal(2 * alone - 1, drawn[0][7:8])


def _variance(data: float, stride: int) -> float:
    """Of what DDPM's steps make of pure noise, for data of a known variance."""
    t = torch.arange(1000, -1, -stride)
    alpha, sigma = DiscreteVP().alpha(t).tolist(), DiscreteVP().sigma(t).tolist()
    found = sigma[0] ** 2
    for a, s, b, r in zip(alpha, sigma, alpha[1:], sigma[1:], strict=False):
        seen = data * a / (data * a**2 + s**2)
        fresh = r * (1 - (a * r / (b * s)) ** 2) ** 0.5
        slope = b * seen + (r**2 - fresh**2) ** 0.5 * (1 - a * seen) / s
        found = slope**2 * found + fresh**2
    return found


def test_a_grid_of_an_edm_network(tmp_path: Path) -> None:
    raw = NCSNpp(8, channels=8, channel_mult=(1, 1), num_blocks=1, attn_resolutions=())
    guide = CifarResNet(blocks=1)
    module = addt(tmp_path, Networks(guide, EDMDenoiser(raw, (3, 8, 8))), dropout=None)
    images = SampleGrid(5, stride=250).draw(module)
    assert images.shape == (5, 3, 8, 8) and torch.isfinite(images).all()
    assert images.std() > 0.01


# --- cost


class Clock(pl.Callback):
    """Nine seconds a batch; and the norm of the gradient, by hand."""

    now = norm = 0.0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):  # type: ignore[no-untyped-def]
        self.now += 9

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):  # type: ignore[no-untyped-def]
        grads = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
        self.norm = torch.cat(grads).double().norm().item()


def test_cost_counts_images_hours_and_the_unclipped_norm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps of two batches, and after a resume one more."""
    for steps, batches, ckpt in ((2, 4, None), (3, 6, tmp_path / "last.ckpt")):
        clock = Clock()
        monkeypatch.setattr(cost, "monotonic", lambda clock=clock: clock.now)
        more = {"accumulate_grad_batches": 2, "gradient_clip_val": 1e-3, "max_steps": steps}
        last = kept(tmp_path)
        made = fit(
            tmp_path, addt(tmp_path), [Cost(), clock, last], ckpt, **more, limit_val_batches=0
        )
        told = {k[5:]: v.item() for k, v in made.callback_metrics.items() if "cost/" in k}
        assert told["grad_norm"] == pytest.approx(clock.norm, rel=1e-5) and clock.norm > 1e-3
        assert told["images_per_second"] == pytest.approx(64 / (9 if ckpt else 18))
        assert told["peak_gib"] > 0.1
        assert told["device_hours"] == pytest.approx((batches - 1) * 9 / 3600)
        saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]["Cost"]
        assert saved["device_hours"] == pytest.approx(batches * 9 / 3600)


def test_every_fit_counts_its_cost_once(tmp_path: Path) -> None:
    words = ["-c", "addt_digits", "--trainer.logger=false", f"--run={tmp_path}"]
    for more in ([], ["--trainer.callbacks+=adpur.Cost"]):
        made = parse("fit", [*words, *more]).trainer
        assert sum(isinstance(c, Cost) for c in made.callbacks) == 1


# --- the search


def test_ranks_are_those_of_a_sort() -> None:
    gen = torch.Generator().manual_seed(3)
    delta = torch.randint(0, 9, (5, 2, 4, 6), generator=gen).double()  # many ties
    want = delta.flatten(2).argsort(dim=-1, stable=True).argsort(-1)
    pixels = torch.tensor([0, 7, 23])
    assert torch.equal(ranks_at(delta, pixels), want[..., pixels])


def mixture(found: Tensor, add: Tensor, losses: Tensor) -> Mixture:
    return Mixture((1 - add**2).sqrt(), add, found, found, losses)


def test_an_image_of_one_pixel_has_rank_0() -> None:
    tally = Tally(1.0)
    tally.add(mixture(torch.ones(2, 3, 1, 1), torch.tensor([0.1, 0.2]).double(), torch.ones(5, 2)))
    assert tally.counts["ranks"].tolist() == [[[2]] * 3] * 3


def test_a_tally_counts_ranks_shares_and_stretches() -> None:
    found = torch.arange(16.0).view(1, 1, 4, 4).repeat(2, 1, 1, 1)
    found[1] = -found[1]
    tally, losses = Tally(0.5), torch.tensor([[1.0, 3.0], [5.0, 5.0]])
    for k in range(3):
        tally.add(mixture(found, torch.tensor([0.0, 0.9]).double(), losses + k))
    ranks = tally.counts["ranks"]
    assert ranks.shape == (3, 1, 16)
    for pixel, place in enumerate((5, 5, 10)):  # [1, 1] twice, then [2, 2]
        assert {k: n for k, n in enumerate(ranks[pixel, 0].tolist()) if n} == {
            place: 3,
            15 - place: 3,
        }
    assert tally.counts["weights"].nonzero().flatten().tolist() == [0, BINS - 1]
    tally.close()
    tally.add(mixture(found, torch.zeros(2).double(), losses))
    tally.close()
    assert tally.counts["first"].tolist() == [2 + 3 + 4, 5 + 6 + 7, 3]
    assert tally.counts["last"].tolist() == [2, 5, 1]


def test_search_figures_of_a_fit_go_on_after_a_resume(tmp_path: Path) -> None:
    straight, first, second = SearchFigures(), SearchFigures(), SearchFigures()
    a, b = tmp_path / "a", tmp_path / "b"
    fit(a, addt(a), [straight], limit_val_batches=0)
    fit(b, addt(b), [first, kept(b)], max_steps=1)
    fit(b, addt(b), [second, kept(b)], b / "last.ckpt", limit_val_batches=0)
    for name in ("ranks", "weights"):
        assert torch.equal(straight.tally.counts[name], second.tally.counts[name]), name
    assert straight.tally.counts["ranks"].sum() == 3 * 3 * 32
    assert straight.tally.counts["weights"].sum() == 3 * 32
    names = {file.name for file in (tmp_path / "a" / "figures").iterdir()}
    assert names == {"search-ranks.png", "search-lambda.png", "search-guide.png"}


def test_a_fit_without_a_search_draws_nothing(tmp_path: Path) -> None:
    module = ADDT(str(tmp_path), pretrained("digits/classifier", "digits/diffusion"), Clean())
    fit(tmp_path, module, [SearchFigures()], max_steps=1, val_check_interval=1)
    assert not (tmp_path / "figures").exists()


@pytest.mark.slow
def test_counts_reach_wandb_as_a_histogram(tmp_path: Path) -> None:
    logger = AutoWandbLogger(save_dir=str(tmp_path), mode="offline")
    log_counts([logger], "search/lambda_counts", np.array([4, 0, 2]), np.array([0, 0.1, 0.2, 0.3]))
    logger.finalize("success")
    done = settled(tmp_path, lambda files: any("search" in "".join(read(f)[2]) for f in files))
    values = read(done[0])[2]
    told = {k.rpartition(".")[2]: v for k, v in values.items() if k.startswith("search/lambda")}
    assert told["_type"] == "histogram" and told["values"] == [4, 0, 2]
