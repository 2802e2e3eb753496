"""What an analysis must not pass off as something else."""

from dataclasses import replace

import pytest
from problems import LinearClassifier, WavyDenoiser
from subjects import subject
from toy import SSNI

from adpur import (
    APGD,
    L2,
    PGD,
    Attack,
    ConfigError,
    Constant,
    Defense,
    DiffAttack,
    Diffusion,
    DiscreteVP,
    Identity,
    LinearVP,
    Networks,
    Oracle,
    RandomNoise,
    Seeded,
    Square,
    Strided,
)
from adpur.defense.gradient import Exact
from adpur.papers.addt.eot_direction import EotDirection
from adpur.papers.addt.knowledge_accuracy import KnowledgeAccuracy
from adpur.papers.addt.landscape import LossLandscape
from adpur.papers.addt.semi import SemiLoss
from adpur.papers.addt.trajectories import Trajectories
from adpur.papers.analysis import Analysis
from adpur.papers.revpure.geometry import PathGeometry
from adpur.papers.revpure.lengths import LengthAccuracy, SubsequenceAccuracy
from adpur.papers.scoreopt.optimising import EotAccuracy
from adpur.papers.ssni.norms import NormOverTime
from adpur.papers.ssni.reweighting import BiasAccuracy
from adpur.papers.subject import Subject
from adpur.papers.sweeps import around
from adpur.purify.presets import scoreopt_o

DDPM = Diffusion(Constant(60), Strided(30))
OWN_NOISE = (KnowledgeAccuracy(), EotDirection(), SemiLoss(pool=2, points=3))
ONE_PATH = (EotDirection(), LossLandscape(points=2), Trajectories(runs=1))


def transferred() -> Subject:
    """The row with an attacker who has the bare classifier."""
    one = subject(DDPM)
    bare = Defense(Identity(), one.defense.networks, 8)
    block = one.blocks[0]
    return replace(one, blocks=(replace(block, source="bare"),), sources={"bare": bare})


@pytest.mark.parametrize("asked", OWN_NOISE, ids=lambda a: type(a).__name__)
def test_an_attack_on_another_row_is_not_this_rows(asked: Analysis) -> None:
    with pytest.raises(ConfigError, match="block 'pgd' attacks another row"):
        asked.ask([transferred()])


def test_a_source_that_does_not_draw_is_attacked_as_one_that_does_not() -> None:
    one = transferred()
    assert one.draws.random and not one.trial().random
    assert subject(DDPM).trial().random


@pytest.mark.parametrize("asked", ONE_PATH, ids=lambda a: type(a).__name__)
def test_iterates_are_those_of_one_pgd(asked: Analysis) -> None:
    with pytest.raises(ConfigError, match=r"expected a block of adpur\.PGD.*got APGD"):
        asked.ask([subject(DDPM, attack=APGD(eps=0.1, steps=3))])


@pytest.mark.parametrize(
    "asked",
    [*OWN_NOISE, LengthAccuracy(), SubsequenceAccuracy(), PathGeometry()],
    ids=lambda a: type(a).__name__,
)
def test_nobody_knows_the_noise_of_a_classifier_that_draws(asked: Analysis) -> None:
    one = subject(DDPM)
    nets = Networks(Seeded(LinearClassifier()), WavyDenoiser())
    defense = Defense(DDPM, nets, 8)
    with pytest.raises(ConfigError, match="draws by itself, and nobody can know"):
        asked.ask([replace(one, defense=defense)])


def test_a_step_of_every_pixel_is_not_an_l2_radius() -> None:
    with pytest.raises(ConfigError, match="expected --eps"):
        SemiLoss(pool=2, points=3).ask([subject(DDPM, attack=PGD(eps=0.5, norm=L2(), steps=1))])


@pytest.mark.parametrize("attack", [Square(eps=0.1, steps=2), RandomNoise(eps=0.1)], ids=repr)
def test_an_attack_without_copies_has_no_curve_over_them(attack: Attack) -> None:
    with pytest.raises(ConfigError, match="expected an attack with eot"):
        EotAccuracy(eot=(1, 2)).ask([subject(DDPM, attack=attack)])


def test_a_deviation_that_no_query_sees_is_refused() -> None:
    one = subject(DDPM)
    x, y, noise = one.images
    oracle = Oracle(one.defense, Exact().view(DDPM), y, noise)
    with pytest.raises(ConfigError, match="follows gradients, got Square"):
        DiffAttack(Square(eps=0.1, steps=2), eps=0.1).run(oracle, x)


def test_times_are_those_of_the_schedule() -> None:
    """No t twice, none at 0, none past the end, whole ones of DDPM and fractions elsewhere."""
    few = NormOverTime(times=20, end=5).ask([subject(DDPM)]).rows
    assert [row[2] for row in few if row[1] == "clean"] == [1.0, 2.0, 3.0, 4.0, 5.0]
    with pytest.raises(ConfigError, match=r"expected end in 0\.\.1000"):
        NormOverTime(end=5000).ask([subject(DDPM)])
    assert around(subject(DDPM), (0.5, 1, 2)) == [30, 60, 120]
    walked = Diffusion(Constant(60), Strided(30), schedule=DiscreteVP())
    other = subject(walked, denoiser=WavyDenoiser(schedule=LinearVP()))
    assert around(other, (0.5, 1, 2)) == [30, 60, 120]  # the walk's schedule, not the network's


def test_a_bias_stays_in_the_schedule() -> None:
    with pytest.raises(ConfigError, match="expected biases with t"):
        BiasAccuracy(biases=(0, 2000)).ask([subject(SSNI)])
    assert [row[3] for row in BiasAccuracy().ask([subject(SSNI, 2)]).rows[::2]] == [
        pytest.approx(share * 60) for share in (0, 0.1, 0.2, 0.3, 0.4)
    ]


def test_scoreopt_has_no_length() -> None:
    with pytest.raises(ConfigError, match="expected a row whose purifier has a Diffusion"):
        LengthAccuracy().ask([subject(scoreopt_o(0.3))])
