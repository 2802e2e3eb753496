"""Exact against approximate gradients: a mode that agrees, one that does not, and what a step does."""

from dataclasses import replace

import pytest
import torch
from subjects import subject

from adpur import (
    BPDA,
    PGD,
    ConfigError,
    Constant,
    Diffusion,
    Exact,
    GradientMode,
    Identity,
    Purifier,
    Strided,
    Substitute,
)
from adpur.papers.scoreopt.agreement import Agreement, GradientAgreement, agreement

DIFFPURE = Diffusion(Constant(60), Strided(30))


def asked(purifier: Purifier, gradient: GradientMode, eps: float = 0.1) -> Agreement:
    one = subject(purifier, attack=PGD(eps=eps), gradient=gradient, dtype=torch.float32)
    return agreement(one, one.block(), 2)


def test_the_exact_gradient_agrees_with_itself() -> None:
    found = asked(DIFFPURE, Exact())
    assert found.cosine == pytest.approx((1, 1, 1), abs=1e-6) and found.signs == 1.0
    assert found.success == found.exact and found.exact.value > 0


def test_another_gradient_agrees_as_far_as_it_does() -> None:
    bpda = asked(DIFFPURE, BPDA())
    assert 0.5 < bpda.cosine.middle < 1 and 0.5 < bpda.signs <= 1
    assert bpda.exact == asked(DIFFPURE, Exact()).exact
    other = asked(DIFFPURE, Substitute(Diffusion(Constant(300), Strided(300))))
    assert other.cosine.middle < bpda.cosine.middle


def test_success_is_of_what_was_right() -> None:
    """On a linear model, a step of the whole range breaks all that it can; one of none, nothing."""
    assert asked(Identity(), Exact(), 0.0).success.value == 0.0
    assert asked(Identity(), Exact(), 1.0).success.value == 1.0
    one = subject(Identity(), attack=PGD(eps=1.0))
    y = (one.images.y + 1) % 3
    y[0] = one.images.y[0]
    one = replace(one, images=one.images._replace(y=y))  # all but the first were wrong before
    assert agreement(one, one.block(), 1).success.value == 1.0


def test_the_whole_attack_takes_the_place_of_the_step() -> None:
    one = subject(Identity(), attack=PGD(eps=1.0, step_size=1e-9, steps=1, random_start=False))
    assert agreement(one, one.block(), 1).success.value == 1.0
    assert agreement(one, one.block(), 1, whole=True).success.value == 0.0


def test_the_table_has_a_line_for_each_measure_of_each_block() -> None:
    one = subject(DIFFPURE, dtype=torch.float32)
    second = replace(one.block(), name="second", gradient=BPDA())
    both = replace(one, blocks=(*one.blocks, second))
    answer = GradientAgreement(copies=2).ask([both])
    assert [row[1] for row in answer.rows] == ["pgd"] * 4 + ["second"] * 4
    assert answer.heading[6:] == ("measure", "value", "low", "high")
    exact, bpda = (row[7] for row in answer.rows if row[6] == "success of the exact gradient")
    assert exact == bpda
    named = GradientAgreement(copies=2, blocks=("second",)).ask([both])
    assert list(named.rows) == list(answer.rows[4:])


def test_nothing_to_ask_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected copies >= 1"):
        GradientAgreement(copies=0)
    with pytest.raises(ConfigError, match="expected attack blocks"):
        GradientAgreement().ask([replace(subject(Identity()), blocks=())])
