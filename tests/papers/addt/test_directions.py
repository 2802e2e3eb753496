"""Iterates, losses and planes of attacks on affine defences, whose loss is convex."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from additive import affine, stepwise
from scipy import stats
from subjects import subject

from adpur import ConfigError, Constant, Diffusion, Knowledge, Strided
from adpur.keyed.noise import Source
from adpur.papers.addt import directions
from adpur.papers.addt.directions import (
    DW_BOX,
    WHITE,
    WHITE_EOT,
    attacker,
    average,
    iterates,
    losses,
)
from adpur.papers.addt.landscape import LossLandscape, Plane
from adpur.papers.addt.trajectories import Trajectories, embedded, nth
from adpur.papers.subject import Subject

DDPM = Diffusion(Constant(300), Strided(150))


def convex(count: int = 4, steps: int = 3) -> Subject:
    """An affine defence, whose cross-entropy is convex."""
    return affine(DDPM, count, stepwise(steps))


def test_the_iterates_are_the_results_of_shorter_attacks() -> None:
    one = convex()
    path = iterates(one, attacker(one, None, *WHITE_EOT[1:]))
    assert torch.equal(path[0], one.images.x)
    for steps in (1, 2, 3):
        shorter = attacker(convex(steps=steps), None, *WHITE_EOT[1:])
        assert torch.equal(path[steps], one.attacked(shorter))


def test_an_attacker_starts_at_the_clean_image_once_with_his_copies() -> None:
    one = subject(DDPM, attack=replace(stepwise(2), restarts=3, candidates=2))
    attack = attacker(one, None, *WHITE[1:]).attack
    assert attack == replace(stepwise(2), random_start=False, eot=1)
    assert attacker(one, None, *WHITE_EOT[1:]).attack == replace(attack, eot=2)


@pytest.mark.parametrize("knowledge", [Knowledge(1), Knowledge(3)])
def test_losses_are_those_of_the_known_draws(
    knowledge: Knowledge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how many points are evaluated at once changes nothing."""
    one, pool = convex(), knowledge.pool or 0
    trial = attacker(one, None, knowledge)
    versions = torch.stack([one.images.x, one.images.x + 0.1, one.images.x - 0.1])
    found = losses(trial, one.images, versions, pool)
    keys = knowledge.evaluate(one.images.noise, pool)
    for x, told in zip(versions, found, strict=True):
        logits = one.defense(x.repeat(pool, 1, 1, 1), keys).logits
        each = F.cross_entropy(logits, one.images.y.repeat(pool), reduction="none")
        torch.testing.assert_close(told, each.view(pool, -1).mean(0))
    monkeypatch.setattr(directions, "AT_ONCE", 1)
    assert torch.equal(found, losses(trial, one.images, versions, pool))


def test_losses_of_the_white_box_are_on_draws_no_attack_met() -> None:
    one = convex()
    trial = attacker(one, None, *WHITE[1:])
    found = losses(trial, one.images, one.images.x[None], 2)[0]
    for source, same in ((Source.SELECT, True), (Source.ATTACK, False)):
        keys = one.images.noise.fold(source=source).repeat(2)
        logits = one.defense(one.images.x.repeat(2, 1, 1, 1), keys).logits
        each = F.cross_entropy(logits, one.images.y.repeat(2), reduction="none").view(2, -1)
        assert torch.allclose(found, each.mean(0)) is same


def test_an_average_is_students_and_leaves_nan_out() -> None:
    values = [0.2, 0.5, 0.9, 0.4]
    wanted = stats.ttest_1samp(values, 0).confidence_interval()
    found = average(torch.tensor([*values, float("nan")], dtype=torch.float64))
    assert found == pytest.approx((0.5, wanted.low, wanted.high))
    assert np.isnan(average(torch.tensor([1.0, float("nan")])).low)


def test_a_plane_holds_both_perturbations() -> None:
    one, other = (convex().images.x[k : k + 2] - 0.5 for k in (0, 2))
    plane = Plane.through(one, other)
    dot = (plane.first * plane.second).flatten(1).sum(1)
    torch.testing.assert_close(dot, torch.zeros(2, dtype=torch.float64))
    sizes = [v.flatten(1).norm(dim=1) for v in plane]
    torch.testing.assert_close(*sizes)
    torch.testing.assert_close(plane.project(one), torch.tensor([[1.0, 0.0]] * 2).double())
    place = plane.project(other)
    assert (place[:, 1] > 0.1).all()
    for k, (a, b) in enumerate(place.tolist()):
        torch.testing.assert_close(plane.at(a, b)[k], other[k])


def test_a_perturbation_that_adds_no_direction_leaves_the_second_empty() -> None:
    one = convex().images.x - 0.5
    plane = Plane.through(one, 0.7 * one)
    assert not plane.second.any() and torch.equal(plane.project(one)[:, 1], torch.zeros(4).double())


def test_the_landscape_of_an_affine_defence() -> None:
    """Convex along lines; the ends of the tracks lie on it."""
    one = convex(1)
    answer = LossLandscape(points=5, span=(0.0, 1.0)).ask([one])
    assert answer.heading[:3] == ("row", "what", "iteration")
    surface = np.array([row[5] for row in answer.rows if row[1] == "surface"]).reshape(5, 5)
    for lines in (surface, surface.T):
        assert (np.diff(lines, 2, axis=1) > 0).all()
    known, eot = (
        np.array([row[3:] for row in answer.rows if row[1] == s.name]) for s in (DW_BOX, WHITE_EOT)
    )
    assert known[0] == pytest.approx([0, 0, surface[0, 0]])
    assert known[-1] == pytest.approx([1, 0, surface[0, -1]])
    assert (np.diff(known[:, 2]) > 0).all() and known[-1, 2] >= eot[-1, 2]
    at = LossLandscape(points=2, span=(float(eot[-1, 0]), 1.0)).ask([one]).rows
    assert eot[-1, 1] > 0.05  # elsewhere than the other
    assert float(at[0][3]) == pytest.approx(eot[-1, 0])


def test_losses_of_a_known_draw_rise_at_every_step() -> None:
    """A sign step on a convex function; each run knows another draw, fresh runs share their own."""
    answer = Trajectories(runs=2, image=2).ask([convex(steps=4)])
    assert answer.heading == ("row", "knowledge", "run", "iteration", "x", "y", "loss")
    assert len(answer.rows) == 3 * 2 * 5

    def told(name: str, run: int) -> Sequence[float]:
        return [float(r[6]) for r in answer.rows if r[1] == name and r[2] == run]

    assert all((np.diff(told("DW-box", run)) > 0).all() for run in (0, 1))
    assert told("DW-box", 0)[0] != told("DW-box", 1)[0]
    starts = {told(s.name, run)[0] for s in (WHITE, WHITE_EOT) for run in (0, 1)}
    assert len(starts) == 1
    assert told("white-box", 0)[-1] != told("white-box", 1)[-1]


def test_a_run_has_its_own_pool_where_there_is_one() -> None:
    one = convex()
    pools = [nth(attacker(one, None, *s[1:]), 2).knowledge for s in (DW_BOX, WHITE)]
    assert pools == [Knowledge(1, seed=2), Knowledge()]


def test_an_embedding_keeps_neighbours_and_repeats() -> None:
    """Two clusters far apart stay apart."""
    points = torch.arange(12.0)[:, None] * torch.ones(5) / 100
    paths = [points, points + 50]
    first, second = embedded(paths, 30)
    assert first.shape == second.shape == (12, 2)
    inside = max(np.linalg.norm(v - v.mean(0), axis=1).max() for v in (first, second))
    assert np.linalg.norm(first.mean(0) - second.mean(0)) > 2 * inside
    assert all((a == b).all() for a, b in zip((first, second), embedded(paths, 30), strict=True))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: LossLandscape(points=1), "points >= 2 and span low < high"),
        (lambda: LossLandscape(span=(1.0, 0.0)), "points >= 2 and span low < high"),
        (lambda: Trajectories(runs=0), "runs >= 1"),
        (lambda: Trajectories(image=4).ask([convex()]), "image below --images 4, got 4"),
    ],
)
def test_settings_that_mean_nothing(made, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        made()
