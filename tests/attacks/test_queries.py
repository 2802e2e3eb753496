"""Attacks that only ask: Square, SPSA, random noise; and what PGD chooses."""

from dataclasses import dataclass, replace

import pytest
import torch
from attack_cases import DIFFPURE, Affine, affine, oracle
from problems import LinearClassifier, images
from torch import Tensor, nn

from adpur import (
    L2,
    PGD,
    SPSA,
    ConfigError,
    CosineDecay,
    Identity,
    Knowledge,
    Linf,
    Margin,
    Networks,
    Noise,
    Oracle,
    RandomNoise,
    Square,
    StepwiseDecay,
    StickyPGD,
    Stream,
    fgsm,
)
from adpur.purify.base import Context, Levels, Purified
from adpur.threat.patches import Bumps, _bumps
from adpur.threat.trace import Trace


@dataclass(frozen=True)
class Noisy(Identity):
    """Input noise: the simplest random defence, with an average that is all there is to attack."""

    sigma: float = 0.25

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        return super().purify(
            x + self.sigma * noise.normal(x, Stream.FORWARD), noise, levels, context
        )


class Bent(LinearClassifier):
    """Logits that bend, so that every draw has another gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.sin(5 * x))


def noisy(purifier: Identity = Noisy()) -> Oracle:
    return oracle(purifier, networks=Networks(Bent())).at(torch.arange(6))


def random(base: Oracle) -> Oracle:
    return replace(base, random=True, loss=Margin())


def test_spsas_direction_needs_shared_noise() -> None:
    """attacks.md: cosine 0.03 and 0.06 (independent), 0.30 and 0.66 (paired) at n = 128 and 1024 in
    256 dimensions; sqrt(n / (n + D)) bounds it, here 0.94 at 128 in 16.
    """
    base, x = random(noisy()), images(6)
    truth = base.value_and_grad(x, 0, 256)[1].flatten(1)
    cosine = {
        paired: torch.cosine_similarity(
            SPSA(samples=128, paired=paired).estimate(base, x).flatten(1), truth
        ).mean()
        for paired in (True, False)
    }
    assert cosine[True] > 0.6 and abs(cosine[False]) < 0.2


def test_spsa_is_exact_at_the_border_of_the_range() -> None:
    """Of a linear function its mean over directions is the gradient, though x +- delta is cut."""
    problem = affine(Identity())
    base = replace(problem.oracle, loss=Margin())
    x = torch.zeros_like(problem.x)
    estimate = SPSA(samples=300).estimate(base.at(torch.tensor([0])), x[:1])
    want = problem.grad[:1]
    assert torch.cosine_similarity(estimate.flatten(1), want.flatten(1)) > 0.94
    assert torch.allclose(estimate.norm(), want.norm(), rtol=0.2)


def test_square_keeps_no_lucky_draw() -> None:
    """On a defence whose loss is noise alone, what it returns is as good as where it began."""

    class Flat(nn.Module):
        shape = (1, 4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack((x[:, 0, 0, 0], 0.5 + 0 * x[:, 0, 0, 0]), 1)

    base = random(
        oracle(Noisy(sigma=3.0), torch.zeros(6, dtype=torch.int64), networks=Networks(Flat()))
    )
    trace = Trace(6)
    found = Square(0.0, steps=20, draws=3).run(replace(base, trace=trace), images(6))
    assert torch.equal(found, images(6))
    assert trace.values == [2 * 19 * 3] * 6  # both sides, every time: nothing is remembered


def test_square_compares_on_the_same_draws_and_then_on_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, answers = [], Oracle.answers

    def watched(self: Oracle, x: Tensor, draws: int, iteration: int = 0) -> Tensor:
        seen.append(iteration)
        return answers(self, x, draws, iteration)

    monkeypatch.setattr(Oracle, "answers", watched)
    Square(0.1, steps=4, draws=2).run(oracle(DIFFPURE), images(6))
    assert seen == [1, 1, 2, 2, 3, 3]


def test_an_adaptive_step_keeps_the_direction_in_l2() -> None:
    grad = images(6) - 0.5
    mean = grad.square().mean((1, 2, 3), keepdim=True).expand_as(grad)
    assert torch.allclose(L2().moment(grad), mean)
    assert torch.equal(Linf().moment(grad), grad * grad)


def test_square_remembers_what_cannot_change() -> None:
    trace, x = Trace(6), images(6)
    base = replace(oracle(Identity()), trace=trace)
    found = Square(0.3, steps=60).run(base, x)
    wrong = base.defense(found).logits.argmax(1) != base.y
    assert wrong.any()
    for queries, done in zip(trace.values, wrong.tolist(), strict=True):
        assert queries < 60 if done else queries == 60
    trace = Trace(6)
    known = oracle(DIFFPURE, knowledge=Knowledge(pool=1))
    Square(0.01, steps=20).run(replace(known, trace=trace), x)
    assert max(trace.values) == 20


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 7, 12), (2, 3, 9)], ids=str)
def test_bumps_use_the_whole_radius_of_images_of_any_shape(shape: tuple[int, ...]) -> None:
    x, noise = torch.full((5, *shape), 0.5, dtype=torch.float64), Noise(torch.arange(5))
    found = Bumps().start(x, 0.2, noise)
    for step in range(20):
        assert torch.allclose(L2().size(found - x), torch.tensor(0.2).double())
        moved = Bumps().move(found, x, 0.2, min(shape[1:]), noise.fold(iteration=step))
        assert not torch.equal(moved, found)
        found = moved
    assert torch.allclose(_bumps(7).norm(), torch.tensor(1.0).double())


def test_squares_shrink_as_published() -> None:
    sides = [Square().side(k, 32, 32) for k in (10, 11, 51, 201, 501, 1001, 2001, 4001)]
    assert sides == [29, 20, 14, 10, 7, 5, 4, 3]
    assert Square().side(1, 100, 4) == 4


def test_random_noise_is_chosen_on_selection_draws() -> None:
    base, x = random(noisy()), images(6)
    attack = RandomNoise(0.2, points=5, draws=4)
    points = torch.stack([attack._point(base, x, k) for k in range(5)])
    strength = torch.stack([base.strength(point, 4) for point in points])
    assert torch.equal(attack.run(base, x), points[strength.argmax(0), torch.arange(6)])
    assert (Linf().size(points[0] - 0.5) > 0).all()
    inside = RandomNoise(0.2, boundary=False)._point(base, x, 0) - x
    assert (inside.abs() < 0.19).any() and (inside.abs() <= 0.2).all()


def test_fgsm_is_one_step_of_the_whole_radius() -> None:
    problem = affine(Identity())
    found = fgsm(0.05).run(problem.oracle, problem.x)
    assert torch.allclose(found, problem.x + 0.05 * problem.grad.sign())


def test_pgd_chooses_among_iterates_on_selection_draws() -> None:
    base, x = random(noisy()), images(6)
    attack = PGD(0.3, steps=6, eot=1, step_size=0.3, candidates=3, select=8, loss=Margin())
    kept = list(attack._iterates(base, x))
    values = torch.stack([base.value(v, 8) for v in kept])
    assert len(kept) == 3 and len(set(values.argmax(0).tolist())) > 1
    assert torch.equal(attack.run(base, x), torch.stack(kept)[values.argmax(0), torch.arange(6)])
    last = replace(attack, candidates=1).run(base, x)
    assert torch.equal(last, kept[-1])


def test_steps_decay_as_stated() -> None:
    assert [StepwiseDecay().share(k, 40) for k in (0, 19, 20, 29, 30)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )
    problem, plain = affine(Identity()), PGD(5.0, 0.01, 4, random_start=False)
    for decay in (CosineDecay(), StepwiseDecay(0.5)):
        moved = replace(plain, decay=decay).run(problem.oracle, problem.x) - problem.x
        total = 0.01 * sum(decay.share(k, 4) for k in range(4))
        assert torch.allclose(moved, total * problem.grad.sign())


def test_sign_steps_are_weak_in_l2() -> None:
    """The linear worst case in L2 is along the gradient; its signs reach |g|_1 / (sqrt(D) |g|_2)."""
    problem: Affine = affine(Identity())
    attack = PGD(0.05, steps=30, norm=L2(), eot=1, sign_step=True, random_start=False)
    found = attack.run(problem.oracle, problem.x)
    share = (problem.margin(found) - problem.margin(problem.x)) / problem.worst(0.05, L2())
    grad = problem.grad.flatten(1)
    want = grad.abs().sum(1) / (4 * grad.norm(dim=1))
    assert torch.allclose(share, want) and want.max() < 0.95


def test_the_published_protocol_claims_less_for_every_look() -> None:
    """Without any attack: 21 looks break images that one look does not, on the mean logits of few."""
    trace, x = Trace(6), 0.5 + 0.1 * images(6)
    base = replace(random(noisy(Noisy(sigma=0.5))), trace=trace)
    found = StickyPGD(0.0, 0.1, steps=20, eot=2, replicates=3).run(base, x)
    assert torch.equal(found, x)
    again = Trace(6)
    StickyPGD(0.0, 0.1, steps=1, eot=2, replicates=3).run(replace(base, trace=again), x)
    many, few = (sum(c or 0 for c in t.claimed) for t in (trace, again))
    assert many < few


def test_the_published_gradient_is_of_the_mean_logits() -> None:
    base, x = random(noisy()), images(6)
    keys = Knowledge().attack(base.noise, 0, 5)
    x_ = x.clone().requires_grad_()
    mean = base.defense(x_.repeat(5, 1, 1, 1), keys).logits.view(5, 6, -1).mean(0)
    (want,) = torch.autograd.grad(nn.functional.cross_entropy(mean, base.y, reduction="sum"), x_)
    attack = StickyPGD(1.0, step_size=1e-3, eot=5, norm=L2())
    moved = attack._step(base, x, x, attack._replicates(base, x, 0), 0) - x
    assert torch.allclose(moved, 1e-3 * L2().direction(want), atol=1e-9)


def test_a_broken_image_stays_where_it_broke() -> None:
    trace, x = Trace(6), images(6)
    base = replace(oracle(Identity()), trace=trace)
    y = torch.where(torch.arange(6) == 0, (base.y + 1) % 3, base.y)  # 0 is broken from the start
    found = StickyPGD(0.3, steps=8).run(replace(base, y=y), x)
    assert torch.equal(found[0], x[0])
    wrong = base.defense(found).logits.argmax(1) != y
    assert [c == 0 for c in trace.claimed] == wrong.tolist() and 1 < wrong.sum() < 6


def test_what_is_claimed_of_several_pools_is_their_mean() -> None:
    """Each pool is attacked on its own; the last one's claim is not the column's."""
    trace, rows = Trace(2), torch.arange(2)
    trace.claim(rows[1:], torch.tensor([1.0]))
    assert trace.claimed == [None, 1.0]
    trace.claim(rows, torch.tensor([0.5, 0.0]))
    assert trace.claimed == [0.5, 0.5]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Square(p_init=0.0), r"p_init must be in \(0, 1\], got 0"),
        (lambda: SPSA(delta=0.0), "delta must be positive"),
        (lambda: SPSA(samples=0), "samples must be >= 1"),
        (lambda: SPSA(steps=8192, samples=128), "would draw 1048576 times, more than the 1048574"),
        (lambda: SPSA(steps=4096, samples=128, paired=False), "would draw 1048576 times"),
        (lambda: Square(steps=2**20), "lower its budget"),
        (lambda: RandomNoise(points=2**20), "lower its budget"),
        (lambda: PGD(steps=3, candidates=4), "candidates must be at most its 3 steps, got 4"),
        (lambda: StepwiseDecay(at=(2.0,)), r"shares in \(0, 1\), got \[2.0\]"),
    ],
)
def test_bad_settings_are_told(make, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=said):
        make()
