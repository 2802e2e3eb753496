"""RevPure's Theorem 1: the Monte Carlo on the real path against chi-square and Gaussian cdfs."""

import pytest

from adpur import ConfigError, NoisyBall, NoisyHalfSpace
from adpur.papers.revpure.theorem.__main__ import settings
from adpur.papers.revpure.theorem.replay import Setting

LEVEL = 0.9999
MEASURED: list[Setting] = [
    NoisyBall(4),
    NoisyBall(4, copies=2),
    NoisyBall(16, copies=8),
    NoisyBall(16, radius=5, pool=1),
    NoisyBall(16, pool=4, copies=4),
    NoisyBall(16, pool=4, copies=2),
    NoisyBall(64, pool=1, eps=6.0),
    NoisyHalfSpace(64),
    NoisyHalfSpace(64, pool=1),
]


@pytest.mark.parametrize("setting", MEASURED, ids=repr)
def test_the_monte_carlo_equals_the_closed_form(setting: Setting) -> None:
    measured, exact, _ = setting.check(800, level=LEVEL)
    assert measured.low <= exact <= measured.high
    assert measured.high - measured.low < 0.15


def test_theorem_1_is_one_copy_and_infinitely_many() -> None:
    assert NoisyBall(4).exact == NoisyBall(4).printed
    many = NoisyBall(16, copies=10**6)
    assert many.exact == pytest.approx(many.printed, abs=1e-5)
    few = NoisyBall(16, copies=2)
    measured = few.check(800, level=LEVEL).measured  # eot 2 is neither
    assert NoisyBall(16).printed < measured.low and measured.high < few.printed


def test_replay_succeeds_always_where_nothing_bounds_it() -> None:
    """Corollary 2.1, which prints the success as R = 0 and means 1 - R."""
    measured, exact, printed = NoisyBall(64, radius=2.0, pool=1).check(800)
    assert measured.value == exact == printed == 1


@pytest.mark.parametrize("pool", [None, 1])
def test_dimension_ends_fresh_attacks_and_bounded_replay_alike(pool: int | None) -> None:
    eps = {} if pool is None else {"eps": 6.0}
    measured = NoisyBall(256, pool=pool, **eps).check(400).measured
    assert measured.value == 0
    assert NoisyBall(4, pool=pool, **eps).check(400).measured.low > 0.8


def test_a_half_space_breaks_the_bound_whatever_the_dimension() -> None:
    """The proof needs F to be right everywhere outside the eps ball; a linear F is not."""
    measured, _, allowed = NoisyHalfSpace(256).check(800, level=LEVEL)
    assert measured.low > 0.5 and allowed < 1e-100


def test_the_table_holds_every_claim() -> None:
    kinds = {(type(s), s.knowledge.pool) for s in settings()}
    assert kinds >= {(NoisyBall, None), (NoisyBall, 1), (NoisyHalfSpace, None), (NoisyHalfSpace, 1)}


@pytest.mark.parametrize(
    "wrong", [{"radius": 0.0}, {"gap": -1.0}, {"radius": 500.0}, {"copies": 0}, {"eps": 2.0}]
)
def test_settings_without_a_closed_form_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="NoisyBall"):
        NoisyBall(**wrong)  # type: ignore[arg-type]
