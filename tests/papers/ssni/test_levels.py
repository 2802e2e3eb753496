"""Images at each t*, and t(x) as a curve: on a classifier of weights and a denoiser that forgets."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import GaussianDenoiser, LinearClassifier, WavyDenoiser
from subjects import subject

from adpur import (
    PGD,
    ConfigError,
    Constant,
    Diffusion,
    Flat,
    Identity,
    Linear,
    Reweighted,
    ScoreNorm,
    Sigmoid,
    Stream,
    Strided,
)
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.papers.ssni.curves import Reweighting
from adpur.papers.ssni.levels import AtLevel, at_level
from adpur.papers.ssni.norms import score_norm
from adpur.papers.ssni.strips import LevelStrips, own_choice
from adpur.papers.subject import Subject
from adpur.purify.levels.reference import Reference
from adpur.threat.knowledge import Knowledge
from adpur.types import to_signed, to_unit

WEIGHT = LinearClassifier().weight.detach()
ZERO = (WEIGHT[0] > WEIGHT[2]).double().view(1, 4, 4)
"""An image of class 0, which no image of the problem is."""
REFERENCE = Reference(20.0, 4.0, 10.0, 30.0, 100, 20, 5, fingerprint(WavyDenoiser()))


def forgetful() -> Subject:
    """Six images of class 2, of which two are labelled 0, and a t* of 500."""
    denoiser = GaussianDenoiser(2 * ZERO - 1, 1e-4)  # type: ignore[arg-type]
    purifier = Diffusion(Constant(500), Strided(250))
    one = subject(purifier, 6, PGD(eps=1.0, steps=2, eot=2), denoiser=denoiser)
    y = one.images.y.clone()
    y[::3] = 0
    return replace(one, images=one.images._replace(y=y))


def test_what_is_forgotten_is_right_at_another_t() -> None:
    """Label 2 is right where nothing is purified, label 0 where all is."""
    answer = LevelStrips((0, 1000), clean=True).ask([forgetful()])
    told = {row[1:5]: row[5] for row in answer.rows}
    for i, label in enumerate((0, 2, 2, 0, 2, 2)):
        assert told[i, label, 0, "share of draws right"] == float(label == 2)
        assert told[i, label, 1000, "share of draws right"] == float(label == 0)
        assert told[i, label, "", "smallest right t*"] == (0 if label == 2 else 1000)
    first = [told["all", "", t, "percent of images first right"] for t in (0, 1000)]
    assert first == pytest.approx([200 / 3, 100 / 3])
    assert told["all", "", "", "percent of images never right"] == 0
    assert told["all", "", 1000, "percent of draws right"] == pytest.approx(100 / 3)


def test_an_attack_of_the_whole_range_leaves_what_is_forgotten() -> None:
    answer = LevelStrips((0, 1000)).ask([forgetful()])
    told = {row[1:5]: row[5] for row in answer.rows}
    assert told["all", "", 0, "percent of draws right"] == 0
    assert told["all", "", 1000, "percent of draws right"] == pytest.approx(100 / 3)
    assert told["all", "", "", "percent of images never right"] == pytest.approx(200 / 3)
    assert told[1, 2, "", "smallest right t*"] == "none"


def test_an_image_at_t_is_what_the_loop_starts_from() -> None:
    one = forgetful()
    still, moved = (at_level(one, one.images, Knowledge(), t) for t in (0, 250))
    assert torch.equal(still.diffused, one.images.x)
    x, keys = to_signed(one.images.x), Knowledge().evaluate(one.images.noise, 1)
    t = torch.full((6,), 250.0, dtype=torch.float64)
    schedule = one.defense.networks.denoiser.schedule
    x_t = schedule.diffuse(x, t, keys.normal(x, Stream.FORWARD))
    torch.testing.assert_close(moved.diffused, to_unit(x_t))
    logits = one.images.x.flatten(1) @ WEIGHT.T
    own = torch.nn.functional.one_hot(one.images.y, 3).bool()
    margin = logits.masked_fill(own, -torch.inf).amax(1) - logits[own]
    assert still.margin == pytest.approx(margin.numpy())


def test_the_default_times_are_shares_of_t_star_that_the_grid_reaches() -> None:
    answer = LevelStrips(clean=True, shown=1).ask([forgetful()])
    assert sorted({row[3] for row in answer.rows if row[3] not in ("", "own")}) == [
        0,
        250,
        500,
        750,
        1000,
    ]


def test_what_chooses_does_not_score() -> None:
    """An image that is right by luck, at one t* in the first half, gains nothing in the second."""
    blank = torch.zeros(2, 1, 4, 4)
    lucky = {0.0: [[1, 1, 0, 0], [0, 0, 0, 0]], 50.0: [[0, 0, 1, 1], [0, 1, 1, 1]]}
    found = [
        AtLevel(t, np.array(d, dtype=np.float64), np.zeros(2), blank, blank)
        for t, d in lucky.items()
    ]
    assert own_choice(found).tolist() == [[0, 0], [1, 1]]


def test_strips_are_of_one_row_that_diffuses() -> None:
    with pytest.raises(ConfigError, match="expected one row, got row, row"):
        LevelStrips().ask([forgetful(), forgetful()])
    with pytest.raises(ConfigError, match="has a Diffusion, got row"):
        LevelStrips().ask([subject(Identity())])
    with pytest.raises(ConfigError, match="shown >= 1"):
        LevelStrips(shown=0)


def reweighted(curve: Sigmoid | Linear | Flat) -> Subject:
    level = Reweighted(400, curve, REFERENCE, ScoreNorm(20, 5))
    return subject(Diffusion(level, Strided(20)), 6, PGD(eps=0.1, steps=1, eot=1))


def test_curves_pass_through_what_fixes_them() -> None:
    one = reweighted(Sigmoid(4.0, 10.0))
    rows = Reweighting().ask([one]).rows
    at = {row[2]: row[4] for row in rows if row[1] == "reference"}
    assert at["mean"] == pytest.approx(205)  # (t* + b) / 2
    rows = Reweighting().ask([reweighted(Linear(7.0))]).rows
    at = {row[2]: row[4] for row in rows if row[1] == "reference"}
    assert (at["min"], at["mean"], at["max"]) == pytest.approx((7, 207, 407))


def test_each_image_stands_where_its_norm_puts_it() -> None:
    one = reweighted(Sigmoid(4.0))
    images = [row for row in Reweighting().ask([one]).rows if row[1] == "image"]
    assert [row[2] for row in images] == ["clean"] * 6 + ["attacked"] * 6
    norms = score_norm(one, one.images)
    assert [row[3] for row in images[:6]] == norms.tolist()
    wanted = 400 / (1 + ((20 - norms) / 4).exp())
    assert [row[4] for row in images[:6]] == pytest.approx(wanted.tolist())


def test_curves_that_are_asked_for_are_drawn_once() -> None:
    def names(curve: Sigmoid | Linear | Flat, asked: Reweighting) -> list[str]:
        rows = asked.ask([reweighted(curve)]).rows
        return list(dict.fromkeys(str(row[2]) for row in rows if row[1] == "curve"))

    own = ["sigmoid, tau 4, b 0", "linear, b 0"]
    assert names(Sigmoid(4.0), Reweighting((4.0,))) == own
    more = names(Sigmoid(4.0), Reweighting((8.0,), (20.0,)))
    assert more == [*own, "sigmoid, tau 8, b 0", "sigmoid, tau 4, b 20", "linear, b 20"]
    assert names(Flat(), Reweighting())[0] == "constant"
    with pytest.raises(ConfigError, match="taus > 0"):
        Reweighting((0.0,))
