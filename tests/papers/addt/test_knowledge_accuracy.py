"""What knowing the noise is worth, where there is a closed form."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from additive import additive, affine, stepwise
from subjects import subject
from torch import Tensor

from adpur import (
    PGD,
    Ancestral,
    ConfigError,
    Constant,
    Diffusion,
    Identity,
    Knowledge,
    Stream,
    Strided,
)  # fmt: skip
from adpur.papers.addt.eot_direction import EotDirection
from adpur.papers.addt.knowledge_accuracy import KnowledgeAccuracy
from adpur.papers.addt.semi import SemiLoss, signs
from adpur.papers.revpure.theorem.noisy import Ball, HalfSpace

DDPM = Diffusion(Constant(300), Strided(150))
DDIM = Diffusion(Constant(300), Strided(150), Ancestral(eta=0))
FIRM = PGD(eps=0.1, steps=2, eot=2)


def table(rows) -> dict[str, tuple[float, ...]]:
    return {row[2]: row[3:] for row in rows}


def test_all_noise_of_ddim_is_that_of_the_forward_process() -> None:
    """ADDT section 4.2: DW-fwd is DW-both there, and is not for DDPM."""
    ddim = table(KnowledgeAccuracy().ask([affine(DDIM, 12, FIRM)]).rows)
    assert list(ddim) == ["clean", "white-box", "DW-fwd", "DW-both"]
    assert ddim["DW-fwd"] == ddim["DW-both"] != ddim["white-box"]
    ddpm = table(KnowledgeAccuracy().ask([affine(DDPM, 12, FIRM)]).rows)
    assert ddpm["DW-fwd"] != ddpm["DW-both"]


def test_who_may_do_nothing_leaves_clean_accuracy() -> None:
    null = table(KnowledgeAccuracy().ask([affine(DDPM, 12, PGD(eps=0.0, steps=1))]).rows)
    assert null["white-box"] == null["clean"]
    value, low, high = null["clean"]
    assert 0 < low < value < high <= 100


def test_strides_are_counted_in_network_calls() -> None:
    answer = KnowledgeAccuracy(strides=(150, 100, 60)).ask([affine(DDPM, 2, PGD(eps=0.1, steps=1))])
    assert [row[1] for row in answer.rows] == [2.0] * 4 + [3.0] * 4 + [5.0] * 4
    assert len(answer.figure.axes) == 1  # one row: one plot over NFE
    assert [t.get_text() for t in answer.figure.axes[0].get_xticklabels()] == ["2", "3", "5"]


def test_more_copies_turn_the_gradient_towards_any_draw() -> None:
    """Additive noise s z at distance d from a ball: (d + s mean z) to (d + s z0)."""
    n, length = 1024, 0.3
    sigma, far = length / math.sqrt(n), 0.5 + length / math.sqrt(n)
    attack = stepwise(1, eps=1e-4)
    one = additive(Ball(far, 0.0), n, sigma, 32, attack)
    rows = EotDirection(copies=(1, 4, 16)).ask([one]).rows
    found = {row[1]: row[3:] for row in rows if row[2] == "cosine, gradients"}
    for copies in (1, 4, 16):
        value, low, high = found[copies]
        wanted = 1 / math.sqrt(2 * (1 + 1 / copies))
        assert value == pytest.approx(wanted, abs=0.02) and high - low < 0.05


def test_one_direction_is_the_same_to_all() -> None:
    one = additive(HalfSpace(16, 1.0), 16, 0.01, 4, stepwise(2))
    rows = EotDirection(copies=(1, 3)).ask([one]).rows
    cosines = [float(v) for row in rows if row[2] != "percent right" for v in row[3:]]
    assert len(cosines) == 12 and cosines == pytest.approx([1.0] * 12)


def test_the_loss_of_a_half_space_along_its_step() -> None:
    """Softplus of a margin that grows by eps sqrt(n) with k, whatever the draw was."""
    n, eps, depth = 64, 0.01, 0.3
    one = additive(HalfSpace(n, depth), n, 1e-9, 4, stepwise(1))
    answer = SemiLoss(eps=eps, pool=3, points=5).ask([one])
    assert answer.heading == ("row", "perturbation", "k", "loss", "low", "high")
    k = torch.linspace(-16, 16, 5).double()
    wanted = F.softplus(k * eps * math.sqrt(n) - depth).tolist()
    for name in ("DW-box", "DW-semi-3"):
        assert [r[2] for r in answer.rows if r[1] == name] == k.tolist()
        assert [float(r[3]) for r in answer.rows if r[1] == name] == pytest.approx(wanted, abs=1e-6)


def test_the_loss_of_a_ball_on_the_known_draws() -> None:
    """sigma is the sign of the mean gradient sigmoid(m) (c - x - s z) over the pool's own draws."""
    n, s, centre, radius, eps, pool = 64, 0.03, 0.52, 0.3, 0.002, 5
    one = additive(Ball(centre, radius), n, s, 3, stepwise(1))
    x, keys = one.images.x, Knowledge(pool).evaluate(one.images.noise, pool)
    z = keys.normal(x.repeat(pool, 1, 1, 1), Stream.FORWARD).view(pool, *x.shape)

    def margin(moved: Tensor) -> Tensor:
        return (radius**2 - (moved + s * z - centre).square().sum((2, 3, 4))) / 2

    weight = margin(x).sigmoid()[..., None, None, None]
    sigma = eps * (weight * (centre - x - s * z)).mean(0).sign()
    rows = SemiLoss(eps=eps, pool=pool, points=3).ask([one]).rows
    found = {row[2]: row[3] for row in rows if row[1] == "DW-semi-5"}
    for k in (-16.0, 0.0, 16.0):
        assert found[k] == pytest.approx(float(F.softplus(margin(x + k * sigma)).mean()), abs=1e-9)


def test_a_known_draw_loses_more_than_the_mean_of_many_and_random_signs_little() -> None:
    """At the largest k, where noise turns the gradient of a ball a long way."""
    n = 1024
    one = additive(Ball(0.52, 0.3), n, 0.03, 32, stepwise(1))
    rows = SemiLoss(eps=0.002, pool=16, points=3).ask([one]).rows
    loss = {(row[1], row[2]): float(row[3]) for row in rows}
    assert loss["DW-box", 16] > loss["DW-semi-16", 16] + 0.05
    assert loss["DW-semi-16", 16] > loss["random signs", 16] + 0.05
    assert loss["DW-box", 0] == loss["random signs", 0]


def test_signs_are_signs_and_keyed() -> None:
    one = additive(HalfSpace(64, 1.0), 64, 0.01, 8, stepwise(1))
    found = signs(one)
    assert set(found.unique().tolist()) == {-1.0, 1.0} and abs(found.mean()) < 0.15
    assert torch.equal(found, signs(one)) and not torch.equal(found[0], found[1])


def test_points_stay_in_the_range() -> None:
    """Images at the end of it; sigma goes both ways."""
    one = additive(HalfSpace(16, 0.0), 16, 1e-9, 1, stepwise(1))
    black = one.images._replace(x=torch.zeros_like(one.images.x))
    one = type(one)(one.row, one.defense, one.draws, black, one.blocks)
    loss = np.array([float(r[3]) for r in SemiLoss(eps=0.05, pool=2, points=3).ask([one]).rows])
    assert loss[0] == pytest.approx(loss[1])  # nothing is below black
    assert loss[2] > loss[1]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: KnowledgeAccuracy(strides=(0,)), "seeds and strides >= 1"),
        (lambda: EotDirection(copies=()), "one or more copies"),
        (lambda: EotDirection(copies=(0, 1)), "one or more copies"),
        (lambda: SemiLoss(points=4), "odd points >= 3"),
        (lambda: SemiLoss(eps=0.0), "eps > 0"),
        (lambda: KnowledgeAccuracy().ask([subject(Identity())]), "a row that purifies"),
    ],
)
def test_settings_that_mean_nothing(made, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        made()
