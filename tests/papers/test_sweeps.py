"""Accuracy over a setting, where it is known: a purifier that changes nothing, one that says one thing."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from problems import GaussianDenoiser, LinearClassifier, WavyDenoiser, networks
from subjects import subject

from adpur import (
    BPDA,
    PGD,
    SR,
    Anchored,
    Attack,
    ConfigError,
    Constant,
    Defense,
    Diff,
    Diffusion,
    Exact,
    GradientMode,
    Identity,
    Knowledge,
    Linear,
    Reweighted,
    ScoreNorm,
    ScoreOpt,
    Sigmoid,
    Strided,
)
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.papers.analysis import Answer, Cell
from adpur.papers.scoreopt.optimising import EotAccuracy, ObjectiveWeight, StepsAccuracy
from adpur.papers.ssni.reweighting import BiasAccuracy, TauAccuracy
from adpur.papers.subject import Subject
from adpur.papers.sweeps import At, having, measured, over, parts, with_purifier
from adpur.purify.base import Purifier
from adpur.purify.chain import Chain
from adpur.purify.levels.reference import Reference

WEIGHT = LinearClassifier().weight.detach()
ZERO = (WEIGHT[0] > WEIGHT[2]).double().view(1, 4, 4)
"""An image of class 0, which no image of the problem is."""
FORGETFUL = GaussianDenoiser(2 * ZERO - 1, 1e-4)  # type: ignore[arg-type]
"""At t = 1000, every image is that one."""
REFERENCE = Reference(20.0, 4.0, 10.0, 30.0, 100, 20, 5, fingerprint(WavyDenoiser()))
HARD = PGD(eps=1.0, steps=2, eot=2)


def fixed(t: float) -> Diffusion:
    return Diffusion(Constant(t), Strided(500))


def forgetful(
    purifier: Purifier, attack: Attack = HARD, gradient: GradientMode = Exact()
) -> Subject:
    """Twelve images of class 2, of which four are labelled 0."""
    one = subject(purifier, 12, attack, gradient, denoiser=FORGETFUL)
    y = one.images.y.clone()
    y[::3] = 0
    return replace(one, images=one.images._replace(y=y))


def reweighted(curve: Sigmoid | Linear) -> Diffusion:
    return Diffusion(Reweighted(400, curve, REFERENCE, ScoreNorm(20, 5)), Strided(20))


def column(answer: Answer, name: str, **where: Cell) -> list[Cell]:
    """A column of the lines that have these cells."""
    place = {n: k for k, n in enumerate(answer.heading)}
    rows = [r for r in answer.rows if all(r[place[n]] == v for n, v in where.items())]
    return [row[place[name]] for row in rows]


def test_each_point_is_attacked_and_judged_with_its_own_purifier() -> None:
    one = forgetful(fixed(500))
    answer = over("t*", [At("row", t, with_purifier(one, fixed(t))) for t in (0, 1000)])
    assert column(answer, "percent right", attack="clean") == pytest.approx([200 / 3, 100 / 3])
    assert column(answer, "percent right", attack="pgd") == pytest.approx([0, 100 / 3])
    assert column(answer, "t*") == [0, 0, 1000, 1000]
    assert column(answer, "mean t", attack="pgd") == [0, 1000]
    assert column(answer, "network calls", attack="clean") == [0, 2]
    low, high = (column(answer, n, attack="pgd") for n in ("low", "high"))
    assert all(a < b for a, b in zip(low, high, strict=True))  # type: ignore[operator]


def test_what_does_not_draw_becomes_random_with_a_purifier_that_does() -> None:
    still = subject(Identity(), 2)
    still = replace(still, draws=still.draws._replace(random=False))
    assert not with_purifier(still, Identity()).draws.random
    assert with_purifier(still, Diffusion(Constant(60), Strided(30))).draws.random


def test_a_transferred_block_still_attacks_its_source() -> None:
    one = forgetful(fixed(500))
    other = Defense(Identity(), networks(FORGETFUL), rows=8)
    block = replace(one.blocks[0], source="bare")
    moved = with_purifier(replace(one, blocks=(block,), sources={"bare": other}), fixed(1000))
    assert moved.trial().defense is other
    assert with_purifier(one, fixed(0)).trial().defense.purifier == fixed(0)
    clean, robust = measured(At("row", 0, moved))  # the deployed one is judged
    assert (clean.outcome.correct == robust.outcome.correct).all()


def test_several_blocks_share_what_is_clean_unless_their_noise_is_known() -> None:
    one = forgetful(fixed(500))
    second = replace(one.blocks[0], name="bpda")
    known = replace(one.blocks[0], name="replay")
    known = replace(known, knowledge=Knowledge(1))
    point = At("row", 1, replace(one, blocks=(*one.blocks, second, known)))
    assert [j.attack for j in measured(point)] == ["clean", "pgd"]
    told = [j.attack for j in measured(point, None)]
    assert told == ["clean", "pgd", "bpda", "clean (replay)", "replay"]
    assert [j.attack for j in measured(point, ("bpda",))] == ["clean", "bpda"]


def test_parts_are_found_wherever_they_are() -> None:
    chain = Chain([fixed(0), fixed(500)])
    assert [level.t for level in parts(chain, Constant)] == [0, 500]
    assert parts(Identity(), Constant) == []
    with pytest.raises(ConfigError, match="expected a row whose purifier has a ScoreOpt, got row"):
        having([subject(fixed(0))], ScoreOpt)


def optimised(steps: int) -> Purifier:
    return ScoreOpt(Constant(0.3), 0.0, inner_steps=steps)


def test_no_optimisation_is_no_defence_and_each_step_is_a_network_call() -> None:
    one = subject(optimised(4), 8, HARD, BPDA())
    answer = StepsAccuracy((0, 3), (Diff(), SR())).ask([one])
    rows = ["row, Diff", "row, SR"]
    for row, calls in zip(rows, (3, 6), strict=True):
        assert column(answer, "network calls", row=row, attack="clean") == [0, calls]
        assert column(answer, "percent right", row=row, attack="clean")[0] == 100
        assert column(answer, "percent right", row=row, attack="pgd")[0] == 0
    assert column(answer, "mean t") == pytest.approx([0.3] * 8)


def test_a_heavy_anchor_keeps_the_image_and_a_light_one_does_not() -> None:
    """Towards one image, in many small steps: all is that image, or all stays what it was."""
    purifier = ScoreOpt(Constant(50.0), 0.0, lr=0.1, inner_steps=40)
    one = forgetful(purifier, PGD(eps=0.0, steps=1, eot=1), BPDA())
    answer = ObjectiveWeight((1e-3, 1e3), (Anchored(),)).ask([one])
    light, heavy = column(answer, "percent right", attack="clean")
    assert (light, heavy) == pytest.approx((100 / 3, 200 / 3))
    assert column(answer, "percent right", attack="pgd") == [light, heavy]


def test_only_the_attack_has_more_replicates() -> None:
    answer = EotAccuracy((1, 3)).ask([forgetful(fixed(500))])
    assert column(answer, "attack queries", attack="pgd") == [2, 6]  # in two steps
    assert column(answer, "attack queries", attack="clean") == [0, 0]
    first, second = column(answer, "percent right", attack="clean")
    assert first == second
    still = subject(Identity(), 4, HARD)
    flat = EotAccuracy((1, 3)).ask([replace(still, draws=still.draws._replace(random=False))])
    assert column(flat, "attack queries", attack="pgd") == [2, 2]


def test_a_hot_sigmoid_gives_every_image_half_of_t_star() -> None:
    one = subject(reweighted(Sigmoid(4.0)), attack=PGD(eps=0.1, steps=1, eot=1), gradient=BPDA())
    answer = TauAccuracy((1e-3, 1e9)).ask([one])
    cold, hot = column(answer, "mean t", attack="clean")
    assert hot == pytest.approx(200)
    assert float(cold) % (400 / 24) == pytest.approx(0, abs=1e-6)  # all or nothing for each draw
    assert column(TauAccuracy().ask([one]), "tau", attack="pgd") == [1, 2, 4, 8, 16]


@pytest.mark.parametrize("curve", [Sigmoid(4.0), Linear()])
def test_the_bias_raises_t_as_its_curve_says(curve: Sigmoid | Linear) -> None:
    one = subject(reweighted(curve), attack=PGD(eps=0.1, steps=1, eot=1), gradient=BPDA())
    without, more = column(BiasAccuracy((0.0, 200.0)).ask([one]), "mean t", attack="clean")
    wanted = 1.5 * float(without) if isinstance(curve, Sigmoid) else float(without) + 200
    assert more == pytest.approx(wanted)


WRONG: Sequence[tuple[type, dict[str, object], str]] = [
    (StepsAccuracy, {"steps": (-1,)}, "steps >= 0"),
    (StepsAccuracy, {"objectives": ()}, "an objective"),
    (ObjectiveWeight, {"weights": (0.0,)}, "weights > 0"),
    (ObjectiveWeight, {"objectives": (Diff(),)}, "objectives with a weight"),
    (EotAccuracy, {"eot": (0,)}, "eot >= 1"),
    (TauAccuracy, {"taus": (0.0,)}, "taus > 0"),
]


@pytest.mark.parametrize(("asked", "given", "told"), WRONG)
def test_options_that_make_no_sense_are_refused(
    asked: type, given: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        asked(**given)


def test_rows_without_the_setting_are_refused() -> None:
    with pytest.raises(ConfigError, match="has a Reweighted, got row"):
        TauAccuracy().ask([subject(fixed(0))])
    with pytest.raises(ConfigError, match="t\\(x\\) has a Sigmoid"):
        TauAccuracy().ask([subject(reweighted(Linear()))])
