"""DiffAttack's deviation against the formula, finite differences and its own parts alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from attack_cases import DIFFPURE, REFERENCE, oracle
from problems import WavyDenoiser, images
from torch import Tensor

from adpur import (
    APGD,
    BPDA,
    MSE,
    PGD,
    VE,
    Ancestral,
    Budgeted,
    Checkpointed,
    ConfigError,
    Constant,
    Corrected,
    DiffAttack,
    Diffusion,
    Even,
    Exact,
    GradientMode,
    Identity,
    LevelGradient,
    Linf,
    Noise,
    Oracle,
    Purifier,
    Reweighted,
    ScoreNorm,
    Sigmoid,
    Source,
    Stream,
    Strided,
    ddpm,
    edm,
    gdmp,
    one_shot,
    rand,
    revpure,
    scoreopt_o,
    vp_sde,
)
from adpur.diffusion.reverse import Seen
from adpur.types import to_signed

WALKS = {
    "ddpm": ddpm(60, 20),
    "ddim": Diffusion(Constant(60), Strided(20), Ancestral(eta=0)),
    "corrected": Diffusion(Constant(60), Strided(30), Corrected(Ancestral())),
    "vp_sde": vp_sde(0.1, 0.03),
    "edm": edm(count=3, churn=1.0),
    "gdmp": gdmp(40, 2, 20, MSE(2e3)),
    "ssni": Diffusion(
        Reweighted(100, Sigmoid(20.0), REFERENCE, ScoreNorm(20, 2)), Strided(10)
    ),  # levels of their own
}
each_walk = pytest.mark.parametrize("purifier", WALKS.values(), ids=WALKS)


def deviating(purifier: Purifier, mode: GradientMode = Exact(), weight: float = 0.7) -> Oracle:
    base = oracle(purifier)
    return replace(base, view=mode.view(purifier), deviation=weight)


def test_it_is_the_mean_over_steps_of_forward_beside_reverse() -> None:
    """By hand, from the states a tap sees."""
    purifier, x, weight = ddpm(60, 20), images(6), 0.7
    base, seen = oracle(purifier), []
    keys = base.noise.fold(source=Source.ATTACK).repeat(2)
    out = base.defense(x.repeat(2, 1, 1, 1), keys, tap=seen.append)
    after = {(int(i), int(k)): v for s in seen for i, k, v in _states(s)}
    after |= {(i, 0): to_signed(v) for i, v in enumerate(out.image.detach())}
    eps, schedule = keys.normal(x.repeat(2, 1, 1, 1), Stream.FORWARD), WavyDenoiser().schedule
    wanted = torch.zeros(12, dtype=torch.float64)
    for to_go, s in ((2, 40), (1, 20), (0, 0)):
        forward = schedule.diffuse(to_signed(x.repeat(2, 1, 1, 1)), torch.full((12,), s), eps)
        back = torch.stack([after[i, to_go] for i in range(12)])
        wanted += ((back - forward) ** 2).flatten(1).mean(1) / 3
    plain = base.per_draw(x, 0, 2).loss
    with_it = replace(base, deviation=weight).per_draw(x, 0, 2).loss
    assert torch.allclose((with_it - plain).flatten(), weight * wanted, rtol=1e-10)
    assert wanted.min() > 1e-3


def _states(seen: Seen) -> Any:
    return zip(seen.row, seen.to_go, seen.x, strict=True)


@each_walk
@pytest.mark.parametrize("mode", [Checkpointed(), Budgeted(4e-6)], ids=repr)
def test_however_steps_are_remembered_it_is_the_same(
    purifier: Purifier, mode: GradientMode
) -> None:
    x = images(6)
    one, other = (deviating(purifier, m).per_draw(x, 0, 2) for m in (Exact(), mode))
    assert torch.equal(one.loss, other.loss) and torch.equal(one.logits, other.logits)
    assert torch.allclose(one.grad, other.grad, rtol=1e-12, atol=1e-14)


def slope_error(own: Oracle, x: Tensor) -> Tensor:
    """Of the gradient along a random direction, against central differences."""
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    h = 1e-6
    up, down = (own.value_and_grad(x + side * h * direction, 0, 2)[0] for side in (1, -1))
    slope = (own.value_and_grad(x, 0, 2)[1] * direction).flatten(1).sum(1)
    return (slope - (up - down) / (2 * h)).abs() / (1e-2 + slope.abs())


@each_walk
def test_its_gradient_is_exact(purifier: Purifier) -> None:
    own, x = deviating(purifier, weight=20.0), images(6)
    assert slope_error(own, x).max() < 1e-5
    plain = replace(own, deviation=None).value_and_grad(x, 0, 2)[1]
    assert (own.value_and_grad(x, 0, 2)[1] - plain).abs().amax() > 0.02  # it is not nothing


def test_its_gradient_is_exact_through_the_level_too() -> None:
    level = Reweighted(0.1, Sigmoid(5.0), REFERENCE, ScoreNorm(20, 2))
    purifier = replace(vp_sde(0.1, 0.03), level=level, grid=Even(3))  # type: ignore[type-var]
    own = replace(deviating(purifier, weight=20.0), levels=LevelGradient(through=True))
    assert slope_error(own, images(6)).max() < 1e-5


def test_of_weight_nothing_it_is_the_plain_attack_to_the_bit() -> None:
    x, base = images(6, torch.float32), oracle(DIFFPURE)
    for plain, other in zip(
        base.per_draw(x, 0, 3), replace(base, deviation=0.0).per_draw(x, 0, 3), strict=True
    ):
        assert torch.equal(plain, other)
    attack = APGD(0.2, 3, eot=2, select=2)
    assert torch.equal(DiffAttack(attack, 0.0, 0.2).run(base, x), attack.run(base, x))


@each_walk
def test_a_batch_is_its_rows_alone(purifier: Purifier) -> None:
    own, x = deviating(purifier), images(6, torch.float32)
    together = own.per_draw(x, 1, 3)
    for i in range(6):
        row = torch.tensor([i])
        alone = own.at(row).per_draw(x[row], 1, 3)
        assert torch.equal(alone.loss, together.loss[:, row])
        assert torch.equal(alone.grad, together.grad[:, row])


def test_workers_and_the_weights_gradients_are_left_as_they_are() -> None:
    own, x = deviating(ddpm(60, 20)), images(6, torch.float32)
    one = own.per_draw(x, 0, 8)
    own.defense.workers = 3
    assert torch.equal(one.grad, own.per_draw(x, 0, 8).grad)
    assert all(p.grad is None for p in own.defense.parameters())


def test_a_row_that_gets_no_noise_has_nothing_to_deviate_from() -> None:
    purifier = Diffusion(Constant(0), Strided(20))
    x, own = images(6), deviating(purifier)
    assert torch.equal(own.per_draw(x, 0).loss, oracle(purifier).per_draw(x, 0).loss)


def test_it_raises_the_deviation() -> None:
    """More of it than the same attack without finds."""
    x, base = images(6), oracle(ddpm(60, 20))
    search = PGD(0.3, 0.1, 20, eot=32)

    def strayed(found: Tensor) -> Tensor:
        fresh = replace(base, noise=Noise(torch.arange(6), seed=9))
        both = (replace(fresh, deviation=w).value_and_grad(found, 0, 64)[0] for w in (1.0, 0.0))
        return next(both) - next(both)

    plain, with_it = (a.run(base, x) for a in (search, DiffAttack(search, 1e3, 0.3)))
    assert (strayed(with_it) > 1.02 * strayed(plain)).all()


@pytest.mark.parametrize(
    ("purifier", "mode", "says"),
    [
        (Identity(), Exact(), "only"),
        (scoreopt_o(steps=1), Exact(), "ScoreOpt"),
        (revpure(60, 20), Exact(), "inject: false"),
        (ddpm(60, 20), BPDA(), "gradient: adpur.Exact"),
    ],
    ids=["identity", "scoreopt", "revpure", "bpda"],
)
def test_what_has_no_path_is_refused_in_one_line(
    purifier: Purifier, mode: GradientMode, says: str
) -> None:
    base = replace(oracle(purifier), view=mode.view(purifier))
    with pytest.raises(ConfigError, match="DiffAttack expects") as told:
        DiffAttack(APGD(steps=2, eot=1)).run(base, images(6))
    assert says in str(told.value) and "\n" not in str(told.value)


def test_its_own_radius_and_norm_hold_and_its_weight_is_checked() -> None:
    x, base = images(6), oracle(DIFFPURE)
    found = DiffAttack(APGD(0.9, 2, eot=1, select=1), 1.0, 0.05).run(base, x)
    assert Linf().size(found - x).max() <= 0.05 + 1e-9
    assert DiffAttack().attack == rand()
    for wrong in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="DiffAttack weight"):
            DiffAttack(weight=wrong)


def test_other_schedules_compare_at_their_own_times() -> None:
    """On VE, x_s = x + s eps: after the one step of a one-shot walk, x itself."""
    purifier, x = one_shot(0.5, clamp=False), images(6)
    base = oracle(purifier)
    assert isinstance(purifier, Diffusion) and isinstance(purifier.schedule, VE)
    keys = base.noise.fold(source=Source.ATTACK).repeat(1)
    image = base.defense(x, keys).image
    wanted = ((2 * (image - x)) ** 2).flatten(1).mean(1)
    gap = replace(base, deviation=1.0).per_draw(x, 0).loss - base.per_draw(x, 0).loss
    assert torch.allclose(gap[0], wanted, rtol=1e-9)
