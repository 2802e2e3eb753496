"""Every way of differentiating agrees with autograd and with finite differences, in fp64."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from problems import images, networks
from purifier_rows import NORM, REFERENCE, every_row
from torch import Tensor

from adpur import (
    BPDA,
    Ancestral,
    Budgeted,
    Checkpointed,
    Constant,
    CrossEntropy,
    Defense,
    Diffusion,
    Exact,
    GradientMode,
    Identity,
    LevelGradient,
    Noise,
    Oracle,
    Purifier,
    Reweighted,
    ScoreOpt,
    Sigmoid,
    Source,
    Strided,
    Subsequence,
    Surrogate,
    ddpm,
)

NOISE = Noise(torch.arange(5), seed=2)
Y = torch.tensor([0, 1, 2, 0, 1])
DDPM = ddpm(100, 20)


def continuous(purifier: Purifier) -> bool:
    """Whether t(x) moves with x, not in jumps."""
    return (
        purifier.measure is not None
        and not isinstance(getattr(purifier, "grid", None), Strided | Subsequence | type(None))
    ) or isinstance(purifier, ScoreOpt)


def oracle(purifier: Purifier, mode: GradientMode, rows: int = 4) -> Oracle:
    return Oracle(Defense(purifier, networks(), rows), mode.view(purifier), Y, NOISE)


@every_row
@pytest.mark.parametrize("mode", [Checkpointed(), Budgeted(4e-6)], ids=repr)
def test_exact_views_agree(purifier: Purifier, mode: GradientMode) -> None:
    x = images(5)
    value, grad = oracle(purifier, Exact()).value_and_grad(x, 0, 3)
    other_value, other = oracle(purifier, mode).value_and_grad(x, 0, 3)
    assert torch.equal(value, other_value)
    assert torch.allclose(grad, other, rtol=1e-12, atol=1e-14)


@every_row
def test_exact_equals_finite_differences(purifier: Purifier) -> None:
    """Including t(x): constant to the attack by default, differentiated here."""
    x = images(5)
    exact = replace(oracle(purifier, Exact()), levels=LevelGradient(through=continuous(purifier)))
    _, grad = exact.value_and_grad(x, 0, 2)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    h = 1e-6
    up, _ = exact.value_and_grad(x + h * direction, 0, 2)
    down, _ = exact.value_and_grad(x - h * direction, 0, 2)
    slope = (grad * direction).flatten(1).sum(1)
    assert torch.allclose(slope, (up - down) / (2 * h), rtol=1e-5, atol=1e-7)


@every_row
def test_exact_equals_plain_autograd_through_the_defence(purifier: Purifier) -> None:
    x = images(5).requires_grad_()
    defense = Defense(purifier, networks(), 4)
    keys = NOISE.fold(source=Source.ATTACK).repeat(1)
    loss = F.cross_entropy(defense(x, keys).logits, Y, reduction="sum")
    (plain,) = torch.autograd.grad(loss, x)
    _, grad = oracle(purifier, Exact()).value_and_grad(x.detach(), 0)
    assert torch.allclose(plain, grad, rtol=1e-12, atol=1e-14)


def test_a_surrogate_on_the_same_grid_is_exact() -> None:
    x, same = images(5), Surrogate(Strided(20))
    value, grad = oracle(DDPM, Exact()).value_and_grad(x, 0, 3)
    other_value, other = oracle(DDPM, same).value_and_grad(x, 0, 3)
    assert torch.equal(value, other_value) and torch.equal(grad, other)


def test_bpda_is_the_classifiers_gradient_at_the_purified_image() -> None:
    purifier, x = DDPM, images(5)
    nets = networks()
    keys = NOISE.fold(source=Source.ATTACK).repeat(1)
    purified = Defense(purifier, nets, 4)(x, keys).image.detach().requires_grad_()
    loss = CrossEntropy().loss(nets.classifier(purified), Y).sum()
    (at_purified,) = torch.autograd.grad(loss, purified)
    value, grad = oracle(purifier, BPDA()).value_and_grad(x, 0)
    assert torch.allclose(grad, at_purified, rtol=1e-12, atol=1e-14)
    assert torch.allclose(value.sum(), loss)


def test_no_gradient_reaches_a_weight() -> None:
    exact = oracle(DDPM, Exact())
    exact.value_and_grad(images(5), 0, 2)
    assert all(p.grad is None for p in exact.defense.parameters())


@pytest.mark.parametrize("mode", [Exact(), Checkpointed(), BPDA()], ids=repr)
def test_gradients_of_a_batch_equal_its_rows_alone(mode: GradientMode) -> None:
    purifier, x = Diffusion(Constant(60), Strided(20)), images(5, torch.float32)
    _, together = oracle(purifier, mode).value_and_grad(x, 3, 2)
    for i in range(5):
        alone = Oracle(
            Defense(purifier, networks(), 4), mode.view(purifier), Y[i : i + 1], NOISE[i : i + 1]
        )
        assert torch.equal(together[i : i + 1], alone.value_and_grad(x[i : i + 1], 3, 2)[1])


def test_a_waiting_row_at_level_zero_has_a_finite_gradient() -> None:
    from purifier_rows import Given

    purifier = Diffusion(Given((0.0, 100.0, 0.0, 20.0, 60.0)), Strided(20), Ancestral())
    _, grad = oracle(purifier, Exact()).value_and_grad(images(5), 0)
    plain = oracle(Identity(), Exact()).value_and_grad(images(5), 0)[1]
    assert torch.allclose(grad[0], plain[0]) and torch.isfinite(grad).all()


def test_the_level_is_drawn_once_per_image_and_iteration() -> None:
    seen: list[Tensor] = []

    class Spy(Reweighted):
        def level(self, norm, noise):  # type: ignore[no-untyped-def]
            seen.append(norm)
            return super().level(norm, noise)

    purifier = Diffusion(Spy(100, Sigmoid(5.0), REFERENCE, NORM), Strided(20))
    oracle(purifier, Exact(), rows=5).value_and_grad(images(5), 0, eot=4)
    assert seen[-1].shape == (20,) and len(seen[-1].unique()) == 5
