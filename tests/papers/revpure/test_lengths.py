"""t* and s*: what each point of a sweep is, and what its attacker knows."""

from dataclasses import replace

import pytest
from subjects import subject

from adpur import (
    VE,
    Ancestral,
    Chain,
    ConfigError,
    Constant,
    Diffusion,
    Knowledge,
    OneShot,
    ScoreOpt,
    Strided,
    Subsequence,
)
from adpur.papers.revpure.lengths import (
    AROUND,
    LengthAccuracy,
    SubsequenceAccuracy,
    _long,
    _sparse,
    replayed,
)
from adpur.papers.sweeps import around

ROW = Diffusion(Constant(60), Strided(20))


def test_a_longer_t_takes_more_steps() -> None:
    answer = LengthAccuracy(ts=(20, 60, 100)).ask([subject(ROW)])
    told = [dict(zip(answer.heading, row, strict=True)) for row in answer.rows]
    assert [t["t*"] for t in told] == [20, 20, 60, 60, 100, 100]
    assert [t["network calls"] for t in told] == [1, 1, 3, 3, 5, 5]
    assert [t["mean t"] for t in told] == [20, 20, 60, 60, 100, 100]
    assert {t["draws"] for t in told} == {1}  # replay: one known draw
    assert [t["attack"] for t in told] == ["clean (pgd)", "pgd"] * 3


def test_by_default_around_the_rows_own_at_what_its_grid_reaches() -> None:
    assert around(subject(ROW), AROUND) == [20, 40, 60, 80, 120]
    assert around(subject(replace(ROW, level=Constant(20))), AROUND) == [0, 20, 40]


def test_an_unreachable_t_is_refused() -> None:
    with pytest.raises(ConfigError, match="t\\* = 50 is not reachable"):
        LengthAccuracy(ts=(50,)).ask([subject(ROW)])


def test_all_rounds_get_it() -> None:
    chain = _long(subject(Chain([ROW, replace(ROW, level=Constant(40))])), 20)
    assert [r.level for r in chain.defense.purifier.rounds] == [Constant(20)] * 2  # type: ignore[attr-defined]
    assert chain.trial().defense is chain.defense


def test_a_subsequence_keeps_t() -> None:
    answer = SubsequenceAccuracy(counts=(2, 7), replay=False).ask([subject(ROW)])
    told = [dict(zip(answer.heading, row, strict=True)) for row in answer.rows]
    assert [(t["s*"], t["network calls"], t["mean t"], t["draws"]) for t in told] == [
        (2, 2, 60, 4), (2, 2, 60, 4), (7, 7, 60, 4), (7, 7, 60, 4),
    ]  # fmt: skip
    sparse = _sparse(subject(ROW), 7).defense.purifier
    assert sparse == replace(ROW, grid=Subsequence(7))


def test_replay_is_the_attackers_alone() -> None:
    one = replayed(subject(ROW))
    assert one.blocks[0].knowledge == Knowledge(1)
    assert replayed(one, False) is one


def test_rows_that_have_neither_are_refused() -> None:
    with pytest.raises(ConfigError, match="has a Grid"):
        SubsequenceAccuracy(counts=(2,)).ask([subject(ScoreOpt(Constant(0.5)))])
    shot = Diffusion(Constant(0.5), OneShot(), Ancestral(eta=0), schedule=VE())
    with pytest.raises(ConfigError, match="Subsequence"):
        SubsequenceAccuracy(counts=(2,)).ask([subject(shot)])
    with pytest.raises(ConfigError, match="expected ts >= 0"):
        LengthAccuracy(ts=(-1,))
    with pytest.raises(ConfigError, match="expected counts >= 1"):
        SubsequenceAccuracy(counts=(0,))
