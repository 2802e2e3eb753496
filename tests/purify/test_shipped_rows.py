"""Every purifier of the four papers, as shipped in configs/purifiers_digits.yaml, on real digits."""

import pytest
import torch

from adpur import (
    BPDA,
    MSE,
    SR,
    Anchored,
    ConfigError,
    Defense,
    Digits,
    Exact,
    LevelGradient,
    Noise,
    Oracle,
    Purifier,
    Resized,
    Sigmoid,
    Source,
    Stream,
    ddpm,
    gdmp,
    gns,
    gns_surrogate,
    one_shot,
    revpure,
    scoreopt_n,
    scoreopt_o,
    ssni,
    vp_sde,
)
from adpur.cli.run import parse_model
from adpur.judging.records import describe
from adpur.lit.test.evaluation import Evaluation

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
def module() -> Evaluation:
    threads = torch.get_num_threads()
    made = parse_model("purifiers_digits")
    torch.set_num_threads(threads)  # the config asks for one
    return made


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
    assert out.image.grad_fn is None and defense(x, Noise(index)).image.grad_fn is None


@pytest.mark.parametrize("name", NAMES)
def test_bits_do_not_depend_on_who_differentiates(module: Evaluation, name: str) -> None:
    """An attacker who knows all noise sees the very image that is judged, BPDA's too."""
    row, nets = module.rows[name], module.defenses[name].networks
    defense = Defense(row.purifier, nets, 8, ensemble=row.ensemble)
    x, _, index = (part[:8] for part in Digits().stacked("test"))
    straight = Defense(BPDA().view(row.purifier), nets, 8, ensemble=row.ensemble)
    with torch.no_grad():
        plain = defense(x, Noise(index)).image
        assert not defense(x.clone().requires_grad_(), Noise(index)).image.requires_grad
    for seen in (defense, straight):
        assert torch.equal(seen(x.clone().requires_grad_(), Noise(index)).image, plain)


def over(purifier: Purifier, **kwargs: object) -> Purifier:
    return ssni(purifier, "digits/diffusion", Sigmoid(1, relative=True), **{"levels": 5} | kwargs)  # type: ignore[arg-type]


VARIANTS = {
    "scoreopt_o with the paper's MSE": scoreopt_o(0.34, objective=Anchored()),
    "scoreopt_n as released": scoreopt_n(0.25, steps=5, as_released=True),
    "scoreopt_n, SR, two rounds": scoreopt_n(0.25, steps=3, rounds=2, objective=SR()),
    "revpure scaled": revpure(100, 20, scaled=True),
    "revpure, s* of t*": revpure(100, subsequence=4),
    "revpure, fixed-large": revpure(100, 20, fixed_large=True),
    "gns surrogate": gns_surrogate((20, 40, 80), (1, 1, 2)),
    "gns, SVHN": gns((30, 30, 30, 30, 50, 50, 80, 80), 10),
    "resized": Resized(ddpm(100, 20), 8),
    "vp_sde corrected": vp_sde(0.1, 0.02, corrector=0.16),
    "ssni over ddim": over(ddpm(100, 20, eta=0)),
    "ssni over revpure": over(revpure(100, 20)),
    "ssni over one_shot": over(one_shot(0.34)),
    "ssni over scoreopt_o": over(scoreopt_o(0.34)),
    "ssni over scoreopt_n": over(scoreopt_n(0.25, steps=5)),
    "ssni over gdmp, each round anew": over(gdmp(60, 2, 20, MSE(50)), recompute=True),
    "ssni, the single score norm": over(ddpm(100, 20), levels=1),
    "ssni, 20 levels": over(ddpm(100, 20), levels=20),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_keeps_digits_readable_and_has_a_gradient(module: Evaluation, name: str) -> None:
    purifier, nets = VARIANTS[name], module.defenses["ddpm"].networks
    x, y, index = (part[:8] for part in Digits().stacked("test"))
    defense = Defense(purifier, nets, 8)
    with torch.no_grad():
        out = defense(x, Noise(index))
    assert (out.logits.argmax(1) == y).float().mean() >= 0.75
    value, grad = Oracle(defense, purifier, y, Noise(index)).value_and_grad(x, 0)
    assert torch.isfinite(value).all() and grad.flatten(1).any(1).all()


def test_another_score_norm_needs_its_own_statistics() -> None:
    with pytest.raises(ConfigError, match="--horizon 20 --levels 7"):
        over(ddpm(100, 20), levels=7)


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
