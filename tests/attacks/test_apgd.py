"""APGD, FAB and ensembles against closed forms, on linear models, plain and behind noise."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from noisy import Noisy
from problems import LinearClassifier, images
from scipy.optimize import linprog

from adpur import (
    APGD,
    DLR,
    FAB,
    L2,
    PGD,
    Attack,
    ConfigError,
    CrossEntropy,
    Defense,
    Exact,
    Identity,
    Linf,
    Loss,
    Margin,
    Networks,
    Noise,
    Norm,
    Oracle,
    Purifier,
    Worst,
    aa_fixed,
    aa_legacy,
    rand,
    standard,
)
from adpur.attacks.apgd import likely_wrong
from adpur.attacks.ascent import Ascent, Control, Copies, Point, checkpoints, mean_of_copies
from adpur.attacks.fab import to_boundary
from adpur.threat.oracle import Look
from adpur.threat.trace import Trace

NORMS: list[Norm] = [Linf(), L2()]
NOISE = Noise(torch.arange(6), seed=1)
DUAL = {"Linf()": 1, "L2()": 2}
NOISY = Noisy(0.25)


def oracle(purifier: Purifier = Identity(), classes: int = 3) -> Oracle:
    defense = Defense(purifier, Networks(LinearClassifier(classes)), 4)
    y = defense.networks.classifier(images(6)).argmax(1)
    random = purifier != Identity()
    return Oracle(defense, Exact().view(purifier), y, NOISE, random=random, trace=Trace(6))


def inside(classes: int = 2) -> tuple[Oracle, torch.Tensor]:
    """Images whose balls stay in the range, with the labels the model gives them."""
    base, x = oracle(classes=classes), 0.3 + 0.4 * images(6)
    return replace(base, y=base.defense(x).logits.argmax(1)), x


@pytest.mark.parametrize("norm", NORMS, ids=repr)
@pytest.mark.parametrize("loss", [Margin(), CrossEntropy()], ids=repr)
def test_apgd_finds_the_worst_case_of_a_linear_model(norm: Norm, loss: Loss) -> None:
    base, x = inside()
    eps = 0.05
    weight = base.defense.networks.classifier.weight  # type: ignore[union-attr]
    fall = eps * (weight[1] - weight[0]).norm(p=DUAL[repr(norm)])
    found = APGD(eps, steps=40, norm=norm, loss=loss).run(base, x)
    before, after = (Margin().loss(base.defense(v).logits, base.y) for v in (x, found))
    assert torch.allclose(after - before, fall.expand(6), rtol=1e-3)


@pytest.mark.parametrize("norm", NORMS, ids=repr)
@pytest.mark.parametrize("eps", [0.0, 1 / 255, 0.3, 5.0])
def test_everything_stays_in_the_ball_and_the_range(norm: Norm, eps: float) -> None:
    base, x = oracle(classes=4), images(6)
    x[0], x[1] = 0.0, 1.0
    small = APGD(eps, 4, norm), FAB(eps, norm, 4), APGD(eps, 4, norm, targets=9, loss=DLR())
    for attack in (*small, Worst(small, eps, norm)):
        found = attack.run(base, x)
        assert norm.size(found - x).max() <= eps + 1e-9
        assert found.min() >= 0 and found.max() <= 1


def test_checkpoints_are_those_of_the_paper() -> None:
    assert checkpoints(100) == {22: 22, 41: 19, 57: 16, 70: 13, 80: 10, 87: 7, 93: 6, 99: 6}
    assert sum(checkpoints(20).values()) <= 20


def test_a_step_halves_for_too_few_rises_or_for_a_best_that_stays() -> None:
    control = Control(torch.ones(4), torch.tensor([8, 7, 8, 8]), torch.zeros(4), torch.zeros(4) > 0)
    best = torch.tensor([1.0, 1.0, 0.0, 1.0])
    assert control.checked(best, 10).tolist() == [False, True, True, False]  # 7 of 10 are too few
    assert control.step.tolist() == [1, 0.5, 0.5, 1]
    control.rises += 9
    assert control.checked(best, 10).tolist() == [True, False, False, True]  # it halved just now
    assert control.step.tolist() == [0.5, 0.5, 0.5, 0.5]


def test_the_best_point_is_the_highest_mean_loss_seen() -> None:
    base, x = oracle(NOISY), images(6)
    climbed = Ascent(0.3, Linf(), 12, Copies(3)).climb(base, x)
    assert base.trace is not None
    seen = torch.tensor(base.trace.loss, dtype=torch.float64)
    assert seen.shape == (6, 13)
    assert torch.equal(climbed.best.value, seen.amax(1))


def test_a_run_that_only_falls_goes_back_and_takes_half_the_step() -> None:
    base, x, eps = oracle(), images(6), 0.1
    seen: list[Point] = []

    def falling(at: torch.Tensor, look: Look, y: torch.Tensor) -> Point:
        point = mean_of_copies(at, look, y)
        seen.append(point._replace(value=torch.full_like(point.value, -len(seen))))
        return seen[-1]

    Ascent(eps, Linf(), 10, Copies(1, falling)).climb(base, x)
    assert 3 in checkpoints(10)
    start = seen[0].x
    ahead = Linf().project(start + eps * seen[0].grad.sign(), x, eps)  # 2 eps, halved once
    moved = start + 0.75 * (ahead - start) + 0.25 * (start - seen[2].x)
    assert torch.allclose(seen[4].x, Linf().project(moved, x, eps), atol=1e-12)


@pytest.mark.parametrize("purifier", [Identity(), NOISY], ids=["plain", "noisy"])
@pytest.mark.parametrize("norm", NORMS, ids=repr)
def test_a_batch_is_its_rows_alone(purifier: Purifier, norm: Norm) -> None:
    base, x = oracle(purifier, classes=4), images(6)
    for attack in (
        APGD(0.3, 5, norm, eot=2, restarts=2, select=2),
        Worst([PGD(steps=2, eot=2), APGD(steps=2, eot=2, targets=2, loss=DLR())], 0.1, norm, 2),
        *([] if base.random else [FAB(0.3, norm, 5)]),
    ):
        together = attack.run(base, x)
        alone = [attack.run(base.at(torch.tensor([i])), x[i : i + 1]) for i in range(3)]
        assert torch.equal(together[:3], torch.cat(alone)), attack


def test_targets_are_the_likely_wrong_classes_in_order() -> None:
    base, x = oracle(classes=5), images(6)
    found = torch.stack(likely_wrong(base, x, 9, 2))
    logits = base.defense(x).logits
    assert found.shape == (4, 6) and (found != base.y).all()
    ranked = logits.gather(1, found.T)
    assert (ranked.diff(dim=1) <= 0).all()


def test_each_target_and_restart_is_its_own_run() -> None:
    base, x = oracle(NOISY, classes=5), images(6)
    attack = APGD(0.01, 2, eot=2, targets=9, restarts=2, select=1)
    assert [own.noise.restart for own in attack._aims(base, x)] == list(range(8))
    attack.run(base, x)
    assert base.trace is not None
    assert base.trace.gradients == [2 * 4 * 3 * 2] * 6


@pytest.mark.parametrize("norm", NORMS, ids=repr)
@pytest.mark.parametrize("reach", [0.1, 5.0, 1e3])
def test_a_step_to_the_boundary_is_the_shortest_in_the_box(norm: Norm, reach: float) -> None:
    x, w = images(5), images(5, seed=8) - 0.5
    w[0, 0, 0, 0] = 0.0
    value = -reach * images(5, seed=9)[:, 0, 0, 0]
    step = to_boundary(x, value, w, x, norm).flatten(1).numpy()
    for s, row, g, v in zip(step, x.flatten(1).numpy(), w.flatten(1).numpy(), value, strict=True):
        far = np.where(g > 0, 1 - row, np.where(g < 0, -row, 0.0))
        if far @ g + float(v) < 0:  # the box does not reach: every coordinate at its bound
            assert np.allclose(s, far)
            continue
        assert (
            np.isclose(g @ s, -float(v))
            and (row + s > -1e-12).all()
            and (row + s < 1 + 1e-12).all()
        )
        if isinstance(norm, Linf):
            assert np.isclose(np.abs(s).max(), shortest_linf(row, g, -float(v)))
        else:  # the KKT conditions: free coordinates move with their weight, others less
            ratio = np.abs(s[g != 0] / g[g != 0])
            free = ~np.isclose(s, far)[g != 0]
            assert not free.any() or np.allclose(ratio[free], ratio.max())


def shortest_linf(row: np.ndarray, w: np.ndarray, gap: float) -> float:
    """min t with |s_i| <= t, the box and <w, s> = gap, as a linear program."""
    n = len(row)
    eye, one = np.eye(n), np.ones((n, 1))
    out = linprog(
        np.r_[np.zeros(n), 1],
        A_ub=np.block([[eye, -one], [-eye, -one]]), b_ub=np.zeros(2 * n),
        A_eq=np.r_[w, 0][None], b_eq=[gap],
        bounds=[*zip(-row, 1 - row, strict=True), (0, None)],
    )  # fmt: skip
    assert out.success
    return float(out.fun)


@pytest.mark.parametrize("norm", NORMS, ids=repr)
def test_fab_breaks_exactly_the_images_within_reach(norm: Norm) -> None:
    base, x = inside()
    weight = base.defense.networks.classifier.weight  # type: ignore[union-attr]
    distance = -Margin().loss(base.defense(x).logits, base.y) / (weight[1] - weight[0]).norm(
        p=DUAL[repr(norm)]
    )
    eps = float(distance.sort().values[2:4].mean())  # between the third and the fourth
    found = FAB(eps, norm, 20).run(base, x)
    broken = base.defense(found).logits.argmax(1) != base.y
    assert torch.equal(broken, distance.detach() < eps)


def test_fab_and_standard_refuse_random_defences() -> None:
    for attack in (FAB(), standard()):
        with pytest.raises(ConfigError, match=r"random.*adpur\.rand"):
            attack.run(oracle(NOISY), images(6))


def test_a_random_defence_has_every_image_attacked_by_every_member() -> None:
    base, x = oracle(NOISY), images(6)
    rand(0.3, eot=2, steps=3).run(base, x)
    assert base.trace is not None
    assert base.trace.gradients == [2 * 2 * 4] * 6


def test_a_deterministic_defence_has_broken_images_left_alone() -> None:
    base, x = inside(3)
    broken = base.strength(PGD(0.2, eot=1).run(base, x), 1) >= 1
    assert broken.any() and not broken.all()
    base = replace(base, trace=Trace(6))
    Worst([PGD(), PGD(steps=7)], 0.2).run(base, x)
    assert base.trace is not None
    assert base.trace.gradients == [20 if b else 27 for b in broken.tolist()]


def test_the_strongest_member_is_kept_image_by_image() -> None:
    base, x = oracle(NOISY), images(6)
    members = [PGD(0.2, steps=1, eot=1, step_size=0.01, restarts=r, select=1) for r in (1, 3)]
    found = Worst(members, 0.2, draws=4).run(base, x)
    each = torch.stack([m.run(base, x) for m in members])
    best = torch.stack([base.strength(v, 4, 2**20 - 2) for v in each]).argmax(0)
    assert torch.equal(found, each[best, torch.arange(6)]) and len(set(best.tolist())) == 2


def test_an_ensembles_budget_is_its_members() -> None:
    base, x = oracle(), images(6)
    found = Worst([PGD(eps=0.5), APGD(eps=0.5)], 0.01, L2()).run(base, x)
    assert L2().size(found - x).max() <= 0.01 + 1e-9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: APGD(targets=-1), "targets must be >= 0"),
        (lambda: APGD(eps=-1), "eps must be >= 0"),
        (lambda: Worst([]), "expected at least one"),
        (lambda: FAB(steps=0), "steps must be >= 1"),
    ],
)
def test_impossible_budgets_are_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_ensembles_are_written_in_yaml() -> None:
    parser = ArgumentParser()
    parser.add_argument("--attack", type=Attack)

    def made(given: dict[str, Any]) -> Attack:
        return parser.instantiate_classes(parser.parse_object({"attack": given})).attack

    few = {"class_path": "adpur.rand", "init_args": {"eps": 0.1, "eot": 3}}
    assert made(few) == rand(0.1, eot=3)
    for preset in (standard, aa_legacy, aa_fixed):
        assert made({"class_path": f"adpur.{preset.__name__}"}) == preset()
    members = [{"class_path": "adpur.PGD", "init_args": {"steps": 3}}, {"class_path": "adpur.APGD"}]
    assert made({"class_path": "adpur.Worst", "init_args": {"attacks": members}}) == Worst(
        [PGD(steps=3), APGD()]
    )
