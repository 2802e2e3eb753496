"""Classifiers that draw by themselves, under keys."""

import random

import numpy as np
import torch
from problems import LinearClassifier, images
from torch import Tensor

from adpur import Defense, Identity, Networks, Noise, Seeded

X = images(6, torch.float32)
NOISE = Noise(torch.arange(6), seed=3)


class Drawing(LinearClassifier):
    """Every generator a careless author may use."""

    def forward(self, x: Tensor) -> Tensor:
        shift = torch.randn(1) + np.random.rand() + random.random()  # noqa: NPY002
        return super().forward(x + 0.3 * torch.randn_like(x)) * (1 + shift)


def defense(rows: int = 8) -> Defense:
    return Defense(Identity(), Networks(Seeded(Drawing())), rows, workers=2)


def test_the_same_keys_give_the_same_answer() -> None:
    once, again = (defense()(X, NOISE).logits for _ in range(2))
    other = defense()(X, NOISE.fold(draw=1)).logits
    assert torch.equal(once, again)
    assert not torch.equal(once, other)
    assert defense().random(X)
    assert not Defense(Identity(), Networks(Seeded(LinearClassifier())), 8).random(X)


def test_draws_of_one_image_differ() -> None:
    copies = X[:1].repeat(8, 1, 1, 1)
    answers = defense()(copies, NOISE[:1].repeat(8)).logits
    assert len({tuple(row) for row in answers.tolist()}) == 8


def test_global_generators_stay_where_they_were() -> None:
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    defense()(X, NOISE)
    after = torch.random.get_rng_state(), np.random.get_state()[1], random.getstate()  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all()
    assert before[2] == after[2]


def test_workers_change_no_bit() -> None:
    many = X.repeat(8, 1, 1, 1)
    noise = NOISE.repeat(8)
    one = Defense(Identity(), Networks(Seeded(Drawing())), 4, workers=1)
    two = Defense(Identity(), Networks(Seeded(Drawing())), 4, workers=4)
    assert torch.equal(one(many, noise).logits, two(many, noise).logits)


class Rolled(LinearClassifier):
    """One choice a call, as a random resizing makes it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.roll(random.randrange(4), 3))


def test_what_draws_once_a_call_is_called_once_a_draw() -> None:
    rolled = Defense(Identity(), Networks(Seeded(Rolled())), 64)
    assert rolled.random(X)
    answers = rolled(X[:1].repeat(32, 1, 1, 1), NOISE[:1].repeat(32)).logits
    assert len({tuple(row) for row in answers.tolist()}) == 4
