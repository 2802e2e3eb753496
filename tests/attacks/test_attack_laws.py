"""What every attack of `attack_cases.CASES` owes, whatever it searches for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from attack_cases import CASES, DIFFPURE, KINDS, SSNI, Case, affine, oracle
from problems import images

from adpur import Identity, Noise, Purifier, Threat
from adpur.judging.judge import Draws, judge
from adpur.judging.scoreboard import Outcome
from adpur.judging.trial import Examples, Trial
from adpur.threat.trace import Trace

each_attack = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_kind = pytest.mark.parametrize(
    ("case", "norm"), KINDS, ids=[f"{case.name}-{norm}" for case, norm in KINDS]
)


def needs_a_walk(case: Case, purifier: Purifier) -> None:
    if case.walks and isinstance(purifier, Identity):
        pytest.skip("refuses what has no reverse process")


@each_kind
def test_it_stays_in_the_ball_and_the_range(case: Case, norm: Threat) -> None:
    deployed = DIFFPURE if case.walks else Identity()
    x, base = images(6), replace(oracle(deployed), random=True)
    x[0], x[1] = 0.0, 1.0  # pixels on the border
    for eps in (0.0, 1 / 255, 0.3, 5.0):
        found = case.quick(eps, norm).run(base, x)
        assert norm.admitted(found, x, eps).excess.max() <= 1e-9
        assert found.min() >= 0 and found.max() <= 1
        assert eps or torch.equal(found, x)


@each_kind
@pytest.mark.parametrize("purifier", [Identity(), SSNI], ids=["fixed", "random"])
def test_a_batch_is_its_images_alone(case: Case, norm: Threat, purifier: Purifier) -> None:
    needs_a_walk(case, purifier)
    attack, x, whole = case.quick(0.2, norm), images(6, torch.float32), oracle(purifier)
    together = attack.run(whole, x)
    order = torch.tensor([3, 0, 5])  # another number of rows
    assert torch.equal(attack.run(whole.at(order), x[order]), together[order])
    for i in (2, 5):
        row = torch.tensor([i])
        assert torch.equal(attack.run(whole.at(row), x[row]), together[row])


@each_attack
def test_without_a_radius_the_judged_matrix_is_the_clean_one(case: Case) -> None:
    base, attack = oracle(), case.quick(0.0, case.norms[0])
    scene = Examples(images(6, torch.float32), base.y, Noise(torch.arange(6)))
    trials = None, Trial(base.defense, attack, random=base.random)
    clean, null = (
        Outcome.of(judge(base.defense, scene, Draws(8, select=4), trial).scores) for trial in trials
    )
    assert np.array_equal(null.predictions, clean.predictions)
    assert np.array_equal(null.mean_logits, clean.mean_logits)
    assert [s.strength for s in null.scores] == [s.strength for s in clean.scores]


@each_attack
def test_it_moves_nothing_global_and_leaves_no_gradient(case: Case) -> None:
    base, before = oracle(), torch.random.get_rng_state()
    case.quick(0.2, case.norms[0]).run(base, images(6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(p.grad is None for p in base.defense.parameters())


@each_attack
def test_its_key_decides_it(case: Case) -> None:
    attack, x, noise = case.quick(0.2, case.norms[-1]), images(6), Noise(torch.arange(6), seed=1)
    one, two = (attack.run(oracle(DIFFPURE, noise=noise), x) for _ in range(2))
    assert torch.equal(one, two)
    other = attack.run(oracle(DIFFPURE, noise=replace(noise, seed=2)), x)
    assert (other != one).flatten(1).any(1).sum() >= 4


@each_kind
@pytest.mark.parametrize("purifier", [Identity(), DIFFPURE], ids=["fixed", "random"])
def test_it_reaches_the_worst_case(case: Case, norm: Threat, purifier: Purifier) -> None:
    needs_a_walk(case, purifier)
    problem, eps = affine(purifier), 0.05
    found = case.strong(eps, norm).run(problem.oracle, problem.x)
    gained = problem.margin(found) - problem.margin(problem.x)
    share = gained / problem.worst(eps, norm)
    assert share.min() >= case.reaches and share.max() <= 1 + 1e-9, share


@each_attack
def test_no_image_is_skipped(case: Case) -> None:
    """Of six images the defence gets half wrong; only attacks published so leave those alone."""
    if case.gates:
        pytest.skip("takes images for broken, as published")
    right, x = oracle().y, images(6)
    y = torch.where(torch.arange(6) < 3, right, (right + 1) % 3)
    found = case.quick(0.1, case.norms[0]).run(oracle(DIFFPURE, y), x)
    assert (found != x).flatten(1).any(1).all()


@each_attack
def test_its_queries_are_counted(case: Case) -> None:
    trace = Trace(6)
    case.quick(0.2, case.norms[0]).run(replace(oracle(), trace=trace), images(6))
    assert all(g + v > 0 for g, v in zip(trace.gradients, trace.values, strict=True))
