"""Every purifier of the four papers, as shipped in configs/purifiers_digits.yaml, on real digits."""

from collections.abc import Iterator

import pytest
import torch

from adpur import BPDA, Defense, Digits, Exact, LevelGradient, Noise, Oracle, Source, Stream
from adpur.lit.evaluation import Evaluation
from adpur.records import describe
from adpur.stages import parse_model

NAMES = [
    "undefended",
    "ddpm",
    "ddim",
    "ddpm-corrector",
    "ddpm-jitter",
    "vp-sde",
    "vp-ode",
    "addt-ddpm",
    "addt-ddim",
    "edm-ode",
    "edm-sde",
    "one-shot",
    "gdmp",
    "gdmp-mse",
    "gdmp-ssim",
    "gns",
    "revpure",
    "revpure-ddim",
    "scoreopt-o",
    "scoreopt-o-sr",
    "scoreopt-n",
    "scoreopt-n-mean",
    "ssni-n",
    "ssni-l",
    "ssni-n-vp-sde",
    "ssni-n-edm",
    "ssni-n-gdmp",
    "ssni-n-gns",
]


@pytest.fixture(scope="module")
def module() -> Iterator[Evaluation]:
    threads = torch.get_num_threads()
    yield parse_model("purifiers_digits")
    torch.set_num_threads(threads)


def test_the_config_has_every_row(module: Evaluation) -> None:
    assert list(module.rows) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_row_keeps_digits_readable_and_has_a_gradient(module: Evaluation, name: str) -> None:
    row, nets = module.rows[name], module.defenses[name].networks
    defense = Defense(row.purifier, nets, 8, ensemble=row.ensemble)
    x, y, index = (part[:8] for part in Digits().stacked("test"))
    with torch.no_grad():
        out = defense(x, Noise(index))
    assert torch.isfinite(out.image).all() and out.image.shape == x.shape
    assert (out.logits.argmax(1) == y).float().mean() >= 0.75
    assert (out.image - x).abs().mean() < 0.2
    assert out.nfe.min() >= (name != "undefended")
    oracle = Oracle(defense, Exact().view(row.purifier), y, Noise(index))
    value, grad = oracle.value_and_grad(x, 0)
    moved = 0.02 * grad / grad.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    assert (oracle.value_and_grad(x + moved, 0)[0] > value).float().mean() >= 0.75
    assert BPDA().view(row.purifier).depth == row.purifier.depth


@pytest.mark.parametrize("name", ["ssni-n", "ssni-n-vp-sde", "ssni-n-edm"])
def test_norm_evasion_lowers_the_norm(module: Evaluation, name: str) -> None:
    """A small step along the evading gradient makes an attacked image look cleaner."""
    defense = module.defenses[name]
    x, y, index = (part[:8] for part in Digits().stacked("test"))
    noise = Noise(index, source=Source.ATTACK)
    x = (x + 0.1 * noise.normal(x, Stream.ATTACK).sign()).clamp(0, 1)

    def stepped(evade: float) -> torch.Tensor:
        oracle = Oracle(defense, defense.purifier, y, noise, levels=LevelGradient(evade=evade))
        grad = oracle.value_and_grad(x, 0)[1]
        return defense.levels((x + 0.01 * grad.sign()).clamp(0, 1), noise).score_norm

    assert (stepped(10.0) < stepped(0.0)).all()


def test_a_row_is_recorded_with_all_that_distinguishes_it(module: Evaluation) -> None:
    told = describe(module.rows["addt-ddim"].purifier)
    assert told["clamp"] and told["step"]["clip"] and not told["step"]["rederive"]
    assert told["step"]["variance"] == "posterior" and told["grid"]["class"] == "Inclusive"
    assert describe(module.rows["gns"])["ensemble"] == {"class": "Majority", "votes": 3}
