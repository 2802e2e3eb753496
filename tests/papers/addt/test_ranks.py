"""Ranks of CGPO's delta: where the gradient is flat, and where it has an order."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from problems import GaussianDenoiser
from subjects import subject
from torch import Tensor, nn

from adpur import ConfigError, Constant, Defense, Diffusion, Networks, Noise, Strided
from adpur.judging.trial import Examples
from adpur.lit.data.base import Split
from adpur.papers.addt.ranks import RankHistograms
from adpur.papers.subject import Subject
from adpur.report.draw.figures import binned_ranks

DIFFPURE = Diffusion(Constant(60), Strided(30))


class Weighted(nn.Module):
    """Logits 0 and w . x."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.shape = (1, 4, 4)
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        margin = x.flatten(1) @ self.weight.to(x)
        return torch.stack((torch.zeros_like(margin), margin), 1)


def guided(weight: Tensor) -> Subject:
    """Class 0 throughout: the guide's gradient is a positive multiple of `weight`."""

    def split(name: Split, count: int) -> Examples:
        assert name == "train"
        x = torch.full((count, 1, 4, 4), 0.5, dtype=torch.float64)
        return Examples(x, torch.zeros(count, dtype=torch.int64), Noise(torch.arange(count)))

    one = subject(DIFFPURE)
    defense = Defense(DIFFPURE, Networks(Weighted(weight), GaussianDenoiser()), rows=64)
    return replace(one, defense=defense, split=split)


def test_a_flat_gradient_leaves_the_ranks_of_the_start() -> None:
    """Those of Gaussian noise, which are uniform."""
    answer = RankHistograms(count=320, steps=1).ask([guided(torch.ones(16))])
    assert answer.heading[:3] == ("row", "pixel", "channel")
    assert {row[7] > 0.001 for row in answer.rows} == {True}
    by_pixel: dict[object, int] = {}
    for row in answer.rows:
        by_pixel[row[1]] = by_pixel.get(row[1], 0) + int(row[5])
    assert by_pixel == {"[1, 1]": 640, "[2, 2]": 320}  # a quarter of the way is [1, 1] too
    assert len(answer.rows) == 48


def test_an_ordered_gradient_has_one_rank_a_pixel() -> None:
    answer = RankHistograms(count=80, steps=2).ask([guided(torch.arange(1.0, 17.0))])
    full = {(row[1], row[3], row[4], row[6]) for row in answer.rows if row[5]}
    assert full == {("[1, 1]", 5, 6, 16.0), ("[2, 2]", 10, 11, 16.0)}
    assert {row[7] < 1e-9 for row in answer.rows} == {True}


def test_neighbouring_ranks_share_a_bin() -> None:
    """As many bins as divide the ranks, up to 32."""
    counts = np.arange(64)[None, None]
    assert binned_ranks(counts).tolist() == [[[4 * k + 1 for k in range(32)]]]
    assert binned_ranks(np.ones((1, 1, 50), dtype=np.int64)).tolist() == [[[2] * 25]]


def test_a_search_leaves_no_gradient_behind() -> None:
    one = guided(torch.arange(1.0, 17.0))
    RankHistograms(count=8, steps=1).ask([one])
    assert all(p.grad is None for p in one.defense.networks.parameters())


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: RankHistograms(count=0), "count >= 1"),
        (lambda: RankHistograms(high=2.0), "lambda"),
        (lambda: RankHistograms().ask([guided(torch.ones(16))] * 2), "one row, got row, row"),
        (lambda: RankHistograms().ask([subject(DIFFPURE)]), "a split 'train', got images alone"),
    ],
)
def test_settings_that_mean_nothing(made, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        made()
