"""Paths of the reverse loop: closed forms of a Gaussian at the origin, order, rounds and waits."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from centred import CENTRED, REVERSE, VAR, factors
from problems import GaussianDenoiser, images
from subjects import subject
from torch import Tensor

from adpur import (
    BPDA,
    Chain,
    ConfigError,
    Constant,
    Diffusion,
    Identity,
    MeanLogits,
    Noise,
    Resized,
    ScoreOpt,
    Strided,
)
from adpur.defense.defense import Defense
from adpur.papers.paths import draws, perturbations, purified, walk
from adpur.papers.revpure.geometry import PathGeometry, measured
from adpur.papers.revpure.pictures import PurificationStrips, hexadecimal
from adpur.purify.base import Purifier
from adpur.types import to_signed


def whole(x: Tensor, row: Tensor) -> Tensor:
    return x


def defense(purifier: Purifier, rows: int = 8) -> Defense:
    return replace_rows(subject(purifier, denoiser=CENTRED).defense, rows)


def replace_rows(old: Defense, rows: int) -> Defense:
    return Defense(old.purifier, old.networks, rows, ensemble=old.ensemble)


def test_a_path_is_in_order_whatever_the_lanes() -> None:
    """Nine rows in two lanes, and in eight."""
    x, noise = images(9), Noise(torch.arange(9))
    for rows in (2, 8):
        path = walk(defense(REVERSE, rows), x, noise, whole)
        assert path.t.tolist() == [[t] * 9 for t in (60, 40, 20, 0)]
        for k, factor in enumerate(factors([60, 40, 20, 0])):
            torch.testing.assert_close(path.kept[k], factor * to_signed(x))


def test_threads_do_not_disturb_it() -> None:
    x, noise = images(9), Noise(torch.arange(9))
    one = subject(Diffusion(Constant(60), Strided(20)), denoiser=CENTRED).defense
    many = Defense(one.purifier, one.networks, 2, workers=4)
    alone = walk(replace_rows(one, 2), x, noise, whole)
    assert torch.equal(walk(many, x, noise, whole).kept, alone.kept)


def test_rounds_follow_each_other_and_the_end_is_the_image() -> None:
    x, noise = images(3), Noise(torch.arange(3))
    made = defense(Chain([REVERSE, REVERSE]))
    path = walk(made, x, noise, whole)
    assert path.t[:, 0].tolist() == [60, 40, 20, 60, 40, 20, 0]
    assert torch.equal(path.kept[-1], to_signed(made(x, noise).image))


def test_rows_that_start_later_wait_at_their_start() -> None:
    """Levels 60, 40, 0: the last never moves."""
    x, noise = images(3), Noise(torch.arange(3))
    made = defense(REVERSE)
    known = made.levels(x, noise)
    own = known._replace(t=torch.tensor([[60.0, 40.0, 0.0]], dtype=torch.float64))

    class Leveled(Defense):
        def levels(self, *args: object, **names: object) -> object:  # type: ignore[override]
            return own

    path = walk(Leveled(made.purifier, made.networks, 8), x, noise, whole)
    assert path.t.T.tolist() == [[60, 40, 20, 0], [40, 40, 20, 0], [0, 0, 0, 0]]
    assert torch.equal(path.kept[0, 1], path.kept[1, 1])
    assert torch.equal(path.kept[:, 2], to_signed(x[2]).expand(4, 1, 4, 4))


def test_of_votes_the_first_is_watched() -> None:
    x, noise = images(3), Noise(torch.arange(3))
    one = defense(Diffusion(Constant(60), Strided(20)))
    voting = Defense(one.purifier, one.networks, 8, ensemble=MeanLogits(3))
    assert torch.equal(walk(voting, x, noise, whole).kept, walk(one, x, noise, whole).kept)


def test_what_never_walks_is_refused() -> None:
    with pytest.raises(ConfigError, match="watches the reverse loop"):
        walk(defense(ScoreOpt(Constant(0.5))), images(2), Noise(torch.arange(2)), whole)
    with pytest.raises(ConfigError, match="needs a row that purifies"):
        PathGeometry().ask([subject(Identity())])


def test_purifying_alone_is_what_a_defence_does() -> None:
    x, noise = images(70), Noise(torch.arange(70))
    one = subject(Diffusion(Constant(60), Strided(30))).defense
    assert torch.equal(purified(one, x, noise), one(x, noise).image)


def test_perturbations_are_on_the_sphere_and_of_each_key() -> None:
    keys = draws(Noise(torch.arange(2)), 3)
    d = perturbations(images(2).repeat(3, 1, 1, 1), keys, 0.4)
    torch.testing.assert_close(d.flatten(1).norm(dim=1), torch.full((6,), 0.4).double())
    assert len(d.flatten(1).unique(dim=0)) == 6
    later = perturbations(images(2), draws(Noise(torch.arange(2)), 1, start=2), 0.4)
    assert torch.equal(later, d[4:])


def test_length_cosine_and_projection() -> None:
    v = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).view(2, 1, 1, 2)
    u = torch.tensor([[10.0, 0.0], [0.0, -1.0]]).view(2, 1, 1, 2)
    expected = torch.tensor([[5.0, 0.6, 3.0], [2.0, -1.0, -2.0]]).double()
    torch.testing.assert_close(measured(v, u), expected)


def test_geometry_has_its_closed_form() -> None:
    """x_t - x_0 = k_t x~ - x_0, relative to the clean image in [-1, 1]."""
    one = subject(REVERSE, denoiser=CENTRED)
    answer = PathGeometry().ask([one])
    found = to_signed(one.attacked(one.trial()))
    clean = to_signed(one.images.x)
    known = {
        "length": lambda v, u: v.norm(),
        "cosine": lambda v, u: v @ u / (v.norm() * u.norm()),
        "projection": lambda v, u: v @ u / u.norm(),
    }
    times = [60.0, 40.0, 20.0, 0.0]
    for name, formula in known.items():
        rows = [row for row in answer.rows if row[1] == name]
        assert [row[2] for row in rows] == ["input", "x_t", "x_t", "x_t", "purified"]
        assert [row[3] for row in rows] == [0.0, *times]
        for row, factor in zip(rows, [1.0, *factors([60, 40, 20, 0])], strict=True):
            pairs = zip(factor * found - clean, found - clean, strict=True)
            values = [float(formula(v.flatten(), u.flatten())) for v, u in pairs]
            assert row[4:] == pytest.approx(np.quantile(values, (0.25, 0.5, 0.75)).tolist())


def test_the_walk_is_that_of_the_replayed_noise() -> None:
    """One known draw, however many are asked for; without replay, each of the evaluation's."""
    one = subject(Diffusion(Constant(60), Strided(30)), gradient=BPDA())
    replayed, fresh = (PathGeometry(replay=r).ask([one]).rows for r in (True, False))
    assert [row[5] for row in replayed] != [row[5] for row in fresh]
    many = replace(one, draws=one.draws._replace(evaluate=9))
    assert list(PathGeometry().ask([many]).rows) == list(replayed)


def test_an_attack_that_moves_nothing_has_no_direction() -> None:
    one = subject(REVERSE)
    still = replace(one.blocks[0], radii=(0.0,))
    with pytest.raises(ConfigError, match="moved no image"):
        PathGeometry().ask([replace(one, blocks=(still,))])


def test_strips_hold_the_pictures_that_were_drawn() -> None:
    one = subject(REVERSE, denoiser=CENTRED)
    answer = PurificationStrips(shown=2, states=2).ask([one])
    mine = [row for row in answer.rows if row[1] == 1]
    assert [row[3:5] for row in mine] == [
        ("clean", 0.0), ("attacked", 0.0), ("x_t", 60.0), ("x_t", 20.0), ("purified", 0.0),
    ]  # fmt: skip
    assert len(answer.rows) == 10 and mine[1][6] == mine[2][6]  # RevPure starts from x~ itself
    few = replace(one, images=one.images.first(2))
    found, factor = to_signed(few.attacked(few.trial())[1]), factors([60, 40, 20, 0])[-1]
    assert mine[0][6] == hexadecimal(one.images.x[1])
    assert mine[4][6] == hexadecimal((factor * found + 1) / 2)
    assert mine[0][5] == mine[0][2] == int(one.images.y[1])


def test_states_of_another_size_are_brought_to_the_images() -> None:
    """A 4 x 4 image purified at 8 x 8: each state has the images' shape."""

    class Large(GaussianDenoiser):
        def __init__(self) -> None:
            super().__init__(0.0, VAR)
            self.shape = (1, 8, 8)

    one = subject(Resized(REVERSE, 8), denoiser=Large())
    path = walk(one.defense, one.images.x, one.images.noise, whole)
    assert path.kept.shape == (4, 6, 1, 4, 4)
    assert math.isclose(
        float(path.kept[-1].mean() / path.kept[0].mean()), factors([60, 40, 20, 0])[-1]
    )


@pytest.mark.parametrize("wrong", [{"shown": 0}, {"states": 0}])
def test_options_of_strips(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected shown, states >= 1"):
        PurificationStrips(**wrong)
