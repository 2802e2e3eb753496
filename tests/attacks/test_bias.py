"""A random defence of known accuracy: what attacks claim, and what their images are worth."""

from functools import cache

import pytest
from noisy import IMAGES, Toy

from adpur import APGD, DLR, L2, PGD, Attack, Linf, Margin, Norm, Worst, aa_fixed, aa_legacy, rand
from adpur.judging.judge import Verdict
from adpur.judging.scoreboard import Outcome
from adpur.judging.statistics import paired_difference

STEPS, EOT = 20, 8


@cache
def toy() -> Toy:
    return Toy()


@cache
def clean(draws: int = 20) -> Outcome:
    own = toy()
    return Outcome.of(own.judged(draws=draws).scores)


@cache
def outcome(attack: Attack) -> Outcome:
    return Outcome.of(toy().judged(attack).scores)


def claimed(found: Outcome) -> float:
    shares = [score.claimed for score in found.scores]
    return sum(share for share in shares if share is not None) / len(shares)


def nulls(norm: Norm) -> list[Attack]:
    few = {"steps": 2, "eot": 2}
    apgd = [APGD(0, norm=norm, loss=loss, select=2, **few) for loss in (Margin(), DLR())]  # type: ignore[arg-type]
    attacks = [PGD(0, norm=norm, **few), *apgd]  # type: ignore[arg-type]
    if norm == L2():
        return attacks
    return [
        *attacks,
        APGD(0, norm=norm, targets=2, select=2, loss=DLR(), **few),  # type: ignore[arg-type]
        Worst(apgd, 0, norm, 2),
        rand(0, norm, **few),
        aa_legacy(0, norm, **few),
        aa_fixed(0, norm, **few),
    ]


@pytest.mark.parametrize("norm", [Linf(), L2()], ids=repr)
def test_the_null_attack_is_exact_for_every_attack_and_estimand(norm: Norm) -> None:
    own, plain = (
        toy(),
        Outcome.of(toy().judged(draws=4).scores),
    )
    found = [Outcome.of(own.judged(attack, draws=4).scores) for attack in nulls(norm)]
    for each in [*found, Outcome.union(found)]:
        assert (each.correct == plain.correct).all() and len(each.images) == IMAGES
        assert (each.predictions == plain.predictions).all()
        assert (each.mean_logits == plain.mean_logits).all()
        wanted = {k: v for k, v in plain.summary().items() if k != "compute"}
        told = {k: each.summary()[k] for k in wanted}
        assert told == pytest.approx(wanted, abs=0, rel=0, nan_ok=True)


def test_published_rand_reports_a_fall_where_nothing_was_done() -> None:
    """eps 1e-9: true accuracy 0.81; published 0.55 to 0.70, repaired between, judged the truth."""
    truth, legacy, fixed = (
        clean(),
        *(outcome(f(1e-9, steps=STEPS, eot=EOT)) for f in (aa_legacy, aa_fixed)),
    )
    assert 0.79 < truth.correct.mean() < 0.84
    assert 0.55 < claimed(legacy) < 0.70
    assert claimed(legacy) + 0.05 < claimed(fixed) < truth.correct.mean() - 0.03
    for found in (legacy, fixed):
        assert abs(found.correct.mean() - truth.correct.mean()) < 0.01


def test_plain_pgd_beats_what_published_rand_returns() -> None:
    """On held-out draws at 2/255, where each attacks 20 steps of 8 copies (rand twice that)."""
    eps = 2 / 255
    legacy, plain = (
        outcome(aa_legacy(eps, steps=STEPS, eot=EOT)),
        outcome(PGD(eps, steps=STEPS, eot=EOT)),
    )
    assert claimed(legacy) < 0.65 < 0.75 < legacy.correct.mean()
    assert paired_difference(legacy.correct, plain.correct).low > 0.05
    assert sum(score.size == 0 for score in legacy.scores) > IMAGES // 2  # returned untouched
    assert all(score.size > 0 for score in plain.scores)


def test_claims_are_shown_only_where_there_are_any() -> None:
    verdict: Verdict = toy().judged(PGD(1e-9, steps=1, eot=1), draws=1)
    assert {score.claimed for score in verdict.scores} == {None}
