"""RBGM and its controls."""

import pytest
import torch
from torch import Tensor

from adpur import (
    RBGM,
    Mapping,
    RandomOrder,
    Rescaled,
    ReverseRBGM,
    Standardised,
    Unmapped,
)

ALL = [RBGM(), Unmapped(), Rescaled(), Standardised(), ReverseRBGM(), RandomOrder()]
SHAPES = [(3, 2, 4, 5), (2, 3, 7), (1, 1, 1, 1), (2, 1, 2, 3, 4)]


def drawn(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=gen, dtype=torch.float64)


def by_hand(delta: Tensor, gaussian: Tensor) -> Tensor:
    """The k-th smallest value where delta has its k-th smallest, one channel at a time."""
    out = torch.empty_like(gaussian)
    for b in range(delta.shape[0]):
        for c in range(delta.shape[1]):
            values = sorted(gaussian[b, c].flatten().tolist())
            flat = delta[b, c].flatten().tolist()
            for value, i in zip(
                values, sorted(range(len(flat)), key=flat.__getitem__), strict=True
            ):
                out[b, c].view(-1)[i] = value
    return out


@pytest.mark.parametrize("shape", SHAPES)
def test_rbgm_by_hand(shape: tuple[int, ...]) -> None:
    delta, gaussian = drawn(shape), drawn(shape, 1)
    assert torch.equal(RBGM()(delta, gaussian), by_hand(delta, gaussian))


@pytest.mark.parametrize("shape", SHAPES)
def test_rbgm_keeps_the_order_and_only_moves_values(shape: tuple[int, ...]) -> None:
    delta, gaussian = drawn(shape).exp(), drawn(shape, 1)
    mapped = RBGM()(delta, gaussian).flatten(2)
    assert torch.equal(mapped.argsort(-1), delta.flatten(2).argsort(-1))
    assert torch.equal(mapped.sort(-1).values, gaussian.flatten(2).sort(-1).values)


def test_ties_keep_the_order_of_the_pixels() -> None:
    delta, gaussian = torch.zeros(1, 2, 3, 3), drawn((1, 2, 3, 3), 1).float()
    mapped = RBGM()(delta, gaussian)
    assert torch.equal(mapped.flatten(2), gaussian.flatten(2).sort(-1).values)
    delta[..., 0, 0] = -1
    assert torch.equal(RBGM()(delta, gaussian), mapped)


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: type(m).__name__)
def test_each_image_by_itself(mapping: Mapping) -> None:
    delta, gaussian = drawn((4, 2, 3, 3)).float(), drawn((4, 2, 3, 3), 1).float()
    whole = mapping(delta, gaussian)
    assert whole.shape == delta.shape
    for i in range(4):
        assert torch.equal(mapping(delta[i : i + 1], gaussian[i : i + 1])[0], whole[i])


@pytest.mark.parametrize("mapping", ALL, ids=lambda m: type(m).__name__)
def test_a_gradient_of_zeros_is_no_nan(mapping: Mapping) -> None:
    assert mapping(torch.zeros(2, 1, 2, 2), drawn((2, 1, 2, 2)).float()).isfinite().all()


@pytest.mark.parametrize("mapping", [m for m in ALL if not isinstance(m, Unmapped)], ids=str)
def test_a_mapping_does_not_see_the_scale(mapping: Mapping) -> None:
    delta, gaussian = drawn((2, 1, 4, 4)), drawn((2, 1, 4, 4), 1)
    assert torch.allclose(mapping(1e-7 * delta, gaussian), mapping(delta, gaussian), rtol=1e-12)


def test_the_controls_keep_what_they_say() -> None:
    delta, gaussian = drawn((2, 3, 8, 8)) ** 3 + 1, drawn((2, 3, 8, 8), 1)
    norms = Rescaled()(delta, gaussian).flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.full_like(norms, (3 * 8 * 8) ** 0.5))
    even = Standardised()(delta, gaussian).flatten(2)
    assert (
        even.mean(-1).abs().max() < 1e-12 and (even.var(-1, correction=0) - 1).abs().max() < 1e-12
    )
    assert torch.equal(even.argsort(-1), delta.flatten(2).argsort(-1))
    reverse = ReverseRBGM()(delta, gaussian).flatten(2)
    assert torch.equal(reverse.sort(-1).values, even.sort(-1).values)
    assert torch.equal(reverse.argsort(-1), gaussian.flatten(2).argsort(-1))
    assert torch.equal(RandomOrder()(delta, gaussian), gaussian)
    assert torch.equal(Unmapped()(delta, gaussian), delta)
