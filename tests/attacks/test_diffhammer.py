"""DiffHammer against closed forms: what it selects, what it grafts, and two modes that cancel."""

from dataclasses import dataclass, replace

import pytest
import torch
from attack_cases import DIFFPURE, SSNI, oracle
from problems import SHAPE, GaussianDenoiser, LinearClassifier, WavyDenoiser, images
from torch import Tensor, nn

from adpur import (
    APGD,
    BPDA,
    L2,
    PGD,
    ConfigError,
    CrossEntropy,
    Defense,
    DiffHammer,
    Exact,
    Identity,
    Knowledge,
    LevelGradient,
    Linf,
    Loss,
    Margin,
    Networks,
    Noise,
    Norm,
    Oracle,
    Resized,
    ddpm,
    dw_semi,
)
from adpur.attacks.em_weights import Together, softplus
from adpur.purify.base import Context, Levels, Purified
from adpur.threat.trace import Trace

NORMS: list[Norm] = [Linf(), L2()]


def two(norm: Norm = Linf(), rounds: int = 5) -> Together:
    return Together(norm, 0.3, 1.0, rounds)


def modes(ahead: int, against: int) -> tuple[Tensor, Tensor]:
    """Losses and gradients of draws that want one direction and of draws that want the opposite."""
    grad = torch.ones(ahead + against, 1, *SHAPE, dtype=torch.float64)
    grad[ahead:] *= -1
    return torch.full((ahead + against, 1), -0.5, dtype=torch.float64), grad


@pytest.mark.parametrize("norm", NORMS, ids=repr)
def test_equal_draws_weigh_the_same(norm: Norm) -> None:
    one = images(2)
    chosen = two(norm)(torch.tensor([[0.3, -2.0]]).repeat(4, 1), one.repeat(4, 1, 1, 1, 1))
    assert torch.equal(chosen.weight, torch.full((4, 2), 0.25, dtype=torch.float64))
    assert torch.equal(chosen.draw, torch.tensor([0, 0]))
    assert torch.allclose(chosen.grad, one)


def test_weights_are_the_formula() -> None:
    """One round by hand: w_i = sigmoid(5 (L_i + <sign g_a, g_i>)), a by elu of a step of eps."""
    gen = torch.Generator().manual_seed(2)
    loss = torch.randn(5, 40, generator=gen, dtype=torch.float64)
    grad = 0.2 * torch.randn(5, 40, *SHAPE, generator=gen, dtype=torch.float64)
    chosen = two(rounds=1)(loss, grad)
    assert (chosen.draw != replace(two(), eps=3.0)(loss, grad).draw).any()  # eps decides some
    for b in range(40):
        inner = torch.einsum("achw,ichw->ai", grad[:, b].sign(), grad[:, b])
        scores = nn.functional.elu(loss[:, b] + 0.3 * inner).sum(1)
        a = int(scores.argmax())
        w = torch.sigmoid(5 * (loss[:, b] + inner[a]))
        assert int(chosen.draw[b]) == a
        assert torch.allclose(chosen.weight[:, b], w / w.sum(), rtol=1e-9)
        wanted = (w.view(-1, 1, 1, 1) * grad[:, b]).sum(0) / w.sum()
        assert torch.allclose(chosen.grad[b], wanted, rtol=1e-9)
    again = two(rounds=2)(loss, grad)
    inner = torch.einsum("bchw,ibchw->ib", chosen.grad.sign(), grad)
    w = torch.sigmoid(5 * (loss + inner))
    assert torch.allclose(again.weight, w / w.sum(0), rtol=1e-9)


def test_the_larger_mode_wins_and_the_other_is_left_out() -> None:
    for ahead, against in ((3, 2), (2, 3), (1, 4)):
        chosen = two()(*modes(ahead, against))
        sign = 1 if ahead > against else -1
        assert (chosen.grad.sign() == sign).all()
        winners = chosen.weight[:ahead] if sign > 0 else chosen.weight[ahead:]
        assert winners.sum() > 1 - 1e-9


def test_hopeless_draws_still_have_weights() -> None:
    """Where all sigmoids underflow, even in fp64."""
    loss = torch.tensor([[-900.0], [-901.0]])
    chosen = two()(loss, 1e-3 * images(2).view(2, 1, *SHAPE))
    assert torch.isfinite(chosen.grad).all() and chosen.weight[0] > 0.9


def test_softplus_never_saturates() -> None:
    loss = torch.tensor([-100.0, -99.0, -20.0, -3.7, -3.6, 0.0, 40.0, 41.0])
    value = softplus(loss)
    assert (value.diff() > 0).all() and value[-1] == 41
    plain = nn.functional.softplus(5 * loss.double(), threshold=1000) / 5
    assert torch.allclose(value, plain, rtol=1e-7)


@pytest.mark.parametrize("norm", NORMS, ids=repr)
@pytest.mark.parametrize("loss", [Margin(), CrossEntropy()], ids=repr)
@pytest.mark.parametrize("graft", [True, False])
def test_on_a_linear_defence_that_does_not_draw_it_is_apgd(
    norm: Norm, loss: Loss, graft: bool
) -> None:
    """Where the gradient is one for all x, averages of it change nothing; CE only scales it."""
    base, x = linear(), images(6)
    hammer = DiffHammer(0.1, 12, norm, graft=graft, loss=loss).run(base, x)
    apgd = APGD(0.1, 12, norm, loss=loss).run(base, x)
    if norm == Linf():
        assert torch.equal(hammer, apgd)
    else:
        assert torch.allclose(hammer, apgd, atol=1e-12)
    assert (hammer != x).any()


def linear() -> Oracle:
    nets = Networks(LinearClassifier(2))
    x = images(6)
    return Oracle(Defense(Identity(), nets, 8), Identity(), nets.classifier(x).argmax(1),
                  Noise(torch.arange(6), seed=1), random=False)  # fmt: skip


def test_grafting_is_the_exact_weighted_gradient_where_all_draws_have_one_jacobian() -> None:
    """On Gaussian data the purifier is a x + noise, so its backward pass is the same in each draw."""
    nets = Networks(LinearClassifier(), GaussianDenoiser())
    x, base = images(6), oracle(ddpm(60, 20), networks=nets)
    cheap, exact = base.straight().per_draw(x, 3, 5), base.per_draw(x, 3, 5)
    assert torch.equal(cheap.loss, exact.loss)
    chosen = two()(cheap.loss, cheap.grad)
    weighted = (chosen.weight.view(5, 6, 1, 1, 1) * exact.grad).sum(0)
    grafted = base.grafted(x, 3, 5, chosen.draw, chosen.grad)
    assert torch.allclose(grafted, weighted, rtol=1e-10, atol=1e-14)
    assert not torch.allclose(chosen.grad, weighted, rtol=1e-2)


@pytest.mark.parametrize("knowledge", [Knowledge(), dw_semi(4)], ids=["white-box", "pool"])
@pytest.mark.parametrize(
    "purifier", [ddpm(60, 20), SSNI, Resized(DIFFPURE, 4)], ids=["ddpm", "ssni", "resized"]
)
def test_what_is_grafted_back_is_the_gradient_of_that_very_draw(purifier, knowledge) -> None:  # type: ignore[no-untyped-def]
    """Its own cheap gradient, put in at its own purified image, is its exact gradient."""
    x, base = images(6), oracle(purifier, knowledge=knowledge)
    cheap, exact = base.straight().per_draw(x, 2, 4), base.per_draw(x, 2, 4)
    draw, rows = torch.tensor([0, 3, 2, 1, 1, 0]), torch.arange(6)
    grafted = base.grafted(x, 2, 4, draw, cheap.grad[draw, rows])
    assert torch.allclose(grafted, exact.grad[draw, rows], rtol=1e-10, atol=1e-14)


def test_under_bpda_there_is_nothing_to_graft_through() -> None:
    x, base = images(6), replace(oracle(), view=BPDA().view(DIFFPURE))
    seed = images(6, seed=8)
    assert torch.equal(base.grafted(x, 0, 3, torch.zeros(6).long(), seed), seed)


@dataclass(frozen=True)
class Shifted(Identity):
    """Moves the image one way in even draws and the opposite in odd ones."""

    by: float = 1.0

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        side = 1.0 - 2 * (torch.as_tensor(noise.draw).to(x) % 2)
        plain = super().purify(x, noise, levels, context)
        return plain._replace(image=x + self.by / 16 * side.view(-1, 1, 1, 1))


class Valley(nn.Module):
    """Class 0 between two walls: u = sum of (x - 0.5), wrong where |u| > 1.3, margin |u| - 1.3."""

    shape = SHAPE

    def forward(self, x: Tensor) -> Tensor:
        u = (x - 0.5).flatten(1).sum(1)
        return torch.stack((torch.full_like(u, 1.3), u.abs()), 1)


VALLEY = Defense(Shifted(), Networks(Valley()), 8)
"""Of draws at u +- 1 an attacker with |u| <= 0.64 can break either half, never both."""


def wrong(found: Tensor, noise: Noise) -> Tensor:
    """Share of 20 fresh draws, as many of each side, that are wrong."""
    keys = Knowledge().evaluate(noise, 20)
    logits = VALLEY(found.repeat(20, 1, 1, 1), keys).logits.view(20, len(found), -1)
    return logits.argmax(2).double().mean(0)


def test_it_commits_to_one_of_two_modes_whose_gradients_cancel() -> None:
    noise, x = Noise(torch.arange(6), seed=1), torch.full((6, *SHAPE), 0.5, dtype=torch.float64)
    base = Oracle(VALLEY, Shifted(), torch.zeros(6).long(), noise)
    assert (wrong(x, noise) == 0).all()
    pgd = PGD(0.04, 0.01, 20, eot=10, random_start=False, loss=Margin()).run(base, x)
    apgd = APGD(0.04, 20, eot=10, loss=Margin()).run(base, x)
    assert torch.equal(pgd, x) and (wrong(apgd, noise) == 0).all()  # their mean gradient is zero
    for graft in (True, False):
        found = DiffHammer(0.04, 20, graft=graft).run(base, x)
        assert (wrong(found, noise) == 0.5).all()
        sides = found.flatten(1).sum(1) > 8
        assert sides.any() and not sides.all()  # whichever wall the start was nearer to


def test_the_average_is_the_formula() -> None:
    """g_t = t^-1/2 g + (1 - t^-1/2) g_(t-1), from what it asks at each point."""
    from adpur.attacks.diffhammer import _Blow

    attack = DiffHammer(0.1, eot=3)
    base, seen, average = oracle(), [], torch.zeros(6, *SHAPE, dtype=torch.float64)
    blow, alone = _Blow(attack), [images(6, seed=s) for s in range(4)]
    for t, x in enumerate(alone, 1):
        seen.append(blow(base, x, t - 1).grad)
        fresh = _Blow(replace(attack, memory=0.0))(base, x, t - 1).grad
        average = t**-0.5 * fresh + (1 - t**-0.5) * average
        assert torch.allclose(seen[-1], average, rtol=1e-12)


def test_it_counts_one_backward_pass_an_iteration_and_the_rest_as_predictions() -> None:
    x, trace = images(6), Trace(6)
    DiffHammer(0.1, 4, eot=3, select=2).run(replace(oracle(), trace=trace), x)
    whole = Trace(6)
    DiffHammer(0.1, 4, eot=3, select=2, graft=False).run(replace(oracle(), trace=whole), x)
    assert set(trace.gradients) == {5} and set(whole.gradients) == {15}
    assert {t - w for t, w in zip(trace.values, whole.values, strict=True)} == {15}
    assert all(len(told) == 5 for told in trace.loss)


def test_what_it_cannot_graft_is_refused() -> None:
    x, base = images(6), oracle(SSNI)
    for seen in (
        replace(base, levels=LevelGradient(evade=1.0)),
        replace(base, deviation=1.0),
    ):
        with pytest.raises(ConfigError, match="graft: false"):
            DiffHammer(0.1, 2).run(seen, x)
        DiffHammer(0.1, 1, eot=2, graft=False).run(seen, x)
    for name in ("ahead", "memory"):
        with pytest.raises(ConfigError, match=f"DiffHammer {name} must be"):
            DiffHammer(**{name: -1.0})
    with pytest.raises(ConfigError, match="DiffHammer rounds"):
        DiffHammer(rounds=0)


def test_a_gradient_that_is_not_finite_names_its_rows() -> None:
    from adpur import AttackError

    class Torn(WavyDenoiser):
        def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
            return super().denoise(x_t, t) + 0 * (x_t - x_t.detach()).sqrt().nan_to_num()

    nets = Networks(LinearClassifier(), Torn())
    base = replace(oracle(DIFFPURE, networks=nets), view=Exact().view(DIFFPURE))
    with pytest.raises(AttackError, match=r"not finite; dataset rows \[0, 1"):
        DiffHammer(0.1, 2, eot=2).run(base, images(6))
