"""Attacks against closed forms, and laws of balls and knowledge."""

import pytest
import torch
from problems import LinearClassifier, WavyDenoiser, images
from torch import Tensor

from adpur import (
    L2,
    PGD,
    AttackError,
    Constant,
    CrossEntropy,
    Defense,
    Diffusion,
    Exact,
    Identity,
    Knowledge,
    LeastLikely,
    Linf,
    Margin,
    Networks,
    NextClass,
    Noise,
    Norm,
    Oracle,
    Source,
    Stream,
    Strided,
)

NORMS: list[Norm] = [Linf(), L2()]
NOISE = Noise(torch.arange(6), seed=1)


def oracle(purifier: object = None, knowledge: Knowledge = Knowledge(), classes: int = 3) -> Oracle:
    nets = Networks(LinearClassifier(classes), WavyDenoiser())
    defense = Defense(purifier or Identity(), nets, 4)  # type: ignore[arg-type]
    y = nets.classifier(images(6)).argmax(1)
    return Oracle(defense, Exact().view(defense.purifier), y, NOISE, knowledge)


@pytest.mark.parametrize("norm", NORMS, ids=repr)
@pytest.mark.parametrize("eps", [0.0, 1 / 255, 0.3, 5.0])
def test_attacks_stay_in_the_ball_and_the_range(norm: Norm, eps: float) -> None:
    x = images(6)
    x[0], x[1] = 0.0, 1.0  # pixels on the border
    for start in (True, False):
        attack = PGD(eps, step_size=max(eps, 0.1), steps=3, norm=norm, eot=1, random_start=start)
        found = attack.run(oracle(), x)
        assert norm.size(found - x).max() <= eps + 1e-9
        assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("norm", NORMS, ids=repr)
def test_projection_is_idempotent_and_keeps_inner_points(norm: Norm) -> None:
    x, far = images(6), 3 * images(6, seed=8) - 1
    inside = norm.project(far, x, 0.2)
    assert torch.allclose(norm.project(inside, x, 0.2), inside, atol=1e-12)


def test_starts_fill_the_ball() -> None:
    x = torch.full((4000, 1, 4, 4), 0.5, dtype=torch.float64)
    noise = Noise(torch.arange(4000))
    radius = L2().size(L2().start(x, 0.1, noise) - x) / 0.1
    assert torch.allclose(
        (radius**16).sort().values, torch.linspace(0, 1, 4000).double(), atol=0.04
    )
    cube = ((Linf().start(x, 0.1, noise) - x) / 0.2 + 0.5).flatten().sort().values
    assert torch.allclose(cube, torch.linspace(0, 1, 64000).double(), atol=0.01)


@pytest.mark.parametrize(("norm", "dual"), [(Linf(), 1), (L2(), 2)], ids=["Linf", "L2"])
def test_pgd_finds_the_worst_case_of_a_linear_model(norm: Norm, dual: int) -> None:
    """Two classes: the margin falls by exactly eps times the dual norm of the weight difference."""
    truth, eps = oracle(classes=2), 0.05
    weight = truth.defense.networks.classifier.weight  # type: ignore[union-attr]
    gap = (weight[1] - weight[0]).norm(p=dual)
    x = 0.3 + 0.4 * images(6)  # the ball stays inside [0, 1]
    y = truth.defense(x).logits.argmax(1)
    truth = Oracle(truth.defense, truth.view, y, NOISE)
    found = PGD(eps, steps=60, norm=norm, eot=1, step_size=0.01, loss=Margin()).run(truth, x)
    before, after = (Margin().loss(truth.defense(v).logits, y) for v in (x, found))
    assert torch.allclose(after - before, (eps * gap).expand(6), rtol=1e-5)


def test_targeted_attacks_approach_their_target() -> None:
    target = LeastLikely()
    base, x = oracle(), images(6)
    labels = target.labels(base, x)
    assert (labels != base.y).all()
    assert torch.equal(NextClass(1).labels(base, x), (base.y + 1) % 3)
    found = PGD(0.3, steps=10, eot=1, target=target).run(base, x)
    loss = CrossEntropy().loss
    before, after = (loss(base.defense(v).logits, labels) for v in (x, found))
    assert (after < before).all()


def test_restarts_keep_the_best_mean_loss_on_selection_draws() -> None:
    base, x = oracle(Diffusion(Constant(60), Strided(20))), images(6)
    one = PGD(0.3, steps=1, eot=1, step_size=0.01)
    runs = [one.run(base.restarted(r), x) for r in range(3)]
    best = PGD(0.3, steps=1, eot=1, step_size=0.01, restarts=3, select=4).run(base, x)
    values = torch.stack([base.value(run, 4) for run in runs])
    assert torch.equal(best, torch.stack(runs)[values.argmax(0), torch.arange(6)])
    assert len(set(values.argmax(0).tolist())) > 1


def test_eot_is_the_mean_of_per_draw_gradients() -> None:
    base, x = oracle(Diffusion(Constant(60), Strided(20))), images(6)
    value, grad, _ = base.per_draw(x, 2, 5)
    assert value.shape == (5, 6) and grad.shape == (5, 6, 1, 4, 4)
    assert not torch.equal(grad[0], grad[1])
    mean_value, mean_grad = base.value_and_grad(x, 2, 5)
    assert torch.allclose(mean_grad, grad.mean(0)) and torch.allclose(mean_value, value.mean(0))


def draw(noise: Noise, stream: Stream) -> Tensor:
    return noise.normal(torch.zeros(len(noise.index), 1, 4, 4), stream)


def test_white_box_knowledge_shares_nothing() -> None:
    knowledge = Knowledge()
    keys = [
        knowledge.attack(NOISE, 0, 2),
        knowledge.attack(NOISE, 1, 2),
        knowledge.select(NOISE, 2),
        knowledge.evaluate(NOISE, 2),
    ]
    draws = torch.cat([draw(k, Stream.REVERSE) for k in keys])
    assert len(draws.flatten(1).unique(dim=0)) == len(draws) == 48
    assert keys[0].source is Source.ATTACK and keys[3].source is Source.EVALUATE


def test_replay_shares_everything() -> None:
    knowledge = Knowledge(pool=1)
    attack, evaluate = knowledge.attack(NOISE, 7, 1), knowledge.evaluate(NOISE, 10)
    assert len(evaluate.index) == 6
    for stream in (Stream.FORWARD, Stream.REVERSE, Stream.LEVEL):
        assert torch.equal(draw(attack, stream), draw(evaluate, stream))


def test_dw_forward_shares_the_forward_noise_only() -> None:
    knowledge = Knowledge(pool=1, streams=frozenset({Stream.FORWARD}))
    attack, evaluate = knowledge.attack(NOISE, 7, 1), knowledge.evaluate(NOISE, 3)
    assert torch.equal(draw(attack, Stream.FORWARD), draw(evaluate, Stream.FORWARD)[:6])
    assert not torch.equal(draw(attack, Stream.REVERSE), draw(evaluate, Stream.REVERSE)[:6])


def test_semi_k_walks_through_and_evaluates_its_pool() -> None:
    knowledge = Knowledge(pool=4)
    evaluate = draw(knowledge.evaluate(NOISE, 99), Stream.REVERSE).view(4, 6, -1)
    for iteration in range(3):
        members = draw(knowledge.attack(NOISE, iteration, 3), Stream.REVERSE).view(3, 6, -1)
        for k in range(3):
            assert torch.equal(members[k], evaluate[(3 * iteration + k) % 4])


def test_a_gradient_that_is_not_finite_stops_the_attack() -> None:
    class Broken(LinearClassifier):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x - x.detach()).sqrt())

    defense = Defense(Identity(), Networks(Broken()), 4)
    bad = Oracle(defense, defense.purifier, torch.zeros(6, dtype=torch.int64), NOISE)
    with pytest.raises(AttackError, match="iteration 0 is not finite"):
        PGD(0.1, eot=1).run(bad, images(6))
