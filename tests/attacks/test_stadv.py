"""Flows: what they make of images, how the judge knows them again, and the attack that finds them."""

from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from attack_cases import DIFFPURE, affine, oracle
from problems import images
from torch import Tensor

from adpur import (
    L2,
    SPSA,
    Assuming,
    Attack,
    ConfigError,
    Flow,
    Identity,
    Knowledge,
    Linf,
    Margin,
    Noise,
    OneStep,
    Oracle,
    StAdv,
    Threat,
    spsa_1280,
)
from adpur.attacks.stadv import unevenness, variation
from adpur.judging.judge import Draws, Verdict, judge
from adpur.judging.trial import Examples, Trial
from adpur.threat.flow import explained, furthest, half, pulled, warped
from adpur.threat.trace import Trace


def photographs(channels: int = 3, side: int = 12, count: int = 4) -> Tensor:
    """Smooth random images `(B, C, side, side + 2)`."""
    gen = torch.Generator().manual_seed(7)
    small = torch.rand(count, channels, 5, 5, generator=gen, dtype=torch.float64)
    return F.interpolate(small, size=(side, side + 2), mode="bicubic").clamp(0, 1)


def flows(x: Tensor, eps: float, seed: int = 0) -> Tensor:
    """Random flows in pixels, a third of their entries at the bound."""
    gen = torch.Generator().manual_seed(seed)
    flow = torch.rand(len(x), 2, *x.shape[2:], generator=gen, dtype=torch.float64)
    return (3 * eps * (flow - 0.5)).clamp(-eps, eps).to(x) * half(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_flow_is_the_identity_to_the_bit(dtype: torch.dtype) -> None:
    x = photographs().to(dtype)
    assert torch.equal(warped(x, torch.zeros_like(x[:, :2])), x)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -1), (-2, 3)])
def test_a_whole_flow_shifts_the_image(down: int, right: int) -> None:
    x = photographs()
    flow = torch.tensor([down, right], dtype=x.dtype).view(1, 2, 1, 1).expand_as(x[:, :2])
    rows = (torch.arange(x.shape[2]) + down).clamp(0, x.shape[2] - 1)
    columns = (torch.arange(x.shape[3]) + right).clamp(0, x.shape[3] - 1)
    assert torch.equal(warped(x, flow), x[:, :, rows][..., columns])


def test_it_is_grid_sample_in_pixels() -> None:
    x = photographs()
    flow = flows(x, 0.3)
    sides = torch.tensor(x.shape[2:], dtype=x.dtype).view(2, 1, 1)
    rows, columns = torch.meshgrid(*(torch.arange(n).to(x) for n in x.shape[2:]), indexing="ij")
    place = 2 * (flow + torch.stack((rows, columns))) / (sides - 1) - 1
    grid = place.flip(1).permute(0, 2, 3, 1)
    theirs = F.grid_sample(x, grid, "bilinear", "border", align_corners=True)
    assert torch.allclose(warped(x, flow), theirs.clamp(0, 1), atol=1e-12)


def test_its_gradient_is_the_difference_of_losses() -> None:
    x, gen = photographs(), torch.Generator().manual_seed(3)
    flow = flows(x, 0.3)
    weight = torch.rand(x.shape, generator=gen, dtype=x.dtype) - 0.5
    slope = pulled(x, flow, weight)
    for axis in (0, 1):  # every pixel by itself, so one difference gives them all
        step = torch.zeros_like(flow)
        step[:, axis] = 1e-7
        rise = (weight * (warped(x, flow + step) - warped(x, flow - step))).sum(1) / 2e-7
        assert torch.allclose(slope[:, axis], rise, atol=1e-6)


def test_variation_counts_every_neighbour_twice() -> None:
    flow = torch.zeros(2, 2, 3, 3, dtype=torch.float64)
    flow[0, :, 1, 1] = torch.tensor([3.0, 4.0])  # four neighbours 5 away, seen from both sides
    flow[1] = 0.7
    assert variation(flow).tolist() == [40.0, 0.0]
    assert not unevenness(flow)[1].any() and unevenness(flow).isfinite().all()


@pytest.mark.parametrize(("channels", "eps"), [(1, 0.05), (1, 0.3), (3, 0.05), (3, 0.3)])
def test_the_judge_knows_a_warped_image_again(channels: int, eps: float) -> None:
    x = photographs(channels, 6)
    found = Flow().admitted(warped(x, flows(x, eps)), x, eps)
    assert found.excess.max() < 1e-9 and found.size.max() <= eps + 1e-12
    once = Flow().admitted(found.image, x, eps)
    assert torch.allclose(once.image, found.image, atol=1e-9)


def test_what_no_flow_reaches_is_mended_and_told() -> None:
    x = photographs()
    bright, far = (x + 0.2).clamp(0, 1), warped(x, flows(x, 0.4))
    for image in (bright, far):
        found = Flow().admitted(image, x, 0.1)
        assert found.excess.min() > 1e-3
        flow = explained(image, x, 0.1)
        assert torch.equal(warped(x, flow), found.image)
        assert (flow / half(flow)).abs().max() <= 0.1 + 1e-12
        nearer = (image - found.image).flatten(1).norm(dim=1)
        assert (nearer <= (image - x).flatten(1).norm(dim=1)).all()


def test_a_pixel_is_brought_as_near_as_a_fine_search_finds() -> None:
    """An image that no flow reaches: 81 x 81 displacements of each pixel are no better."""
    x = photographs(3, 6, count=1)
    image = (x + 0.1 * (images(1).mean() - 0.3)).clamp(0, 1).flip(1)
    error = (Flow().admitted(image, x, 0.3).image - image).square().sum(1)
    reach = (0.3 * half(x)).flatten().tolist()
    tried = torch.cartesian_prod(*(torch.linspace(-r, r, 81).to(x) for r in reach))
    flow = tried.view(-1, 2, 1, 1).expand(-1, -1, *x.shape[2:])
    best = (warped(x.expand(len(flow), -1, -1, -1), flow) - image).square().sum(1).amin(0)
    assert (error[0] <= best * (1 + 1e-6)).all()


def test_the_first_step_is_the_best_of_a_linear_loss() -> None:
    x, gen = photographs(), torch.Generator().manual_seed(4)
    grad = torch.rand(x.shape, generator=gen, dtype=x.dtype) - 0.5
    most = (grad * warped(x, furthest(x, grad, 0.3))).sum(1)
    for seed in range(50):
        assert (most >= (grad * warped(x, flows(x, 0.3, seed))).sum(1) - 1e-12).all()


@dataclass(frozen=True)
class Returns(Attack):
    """Answers with an image made before, whatever it is."""

    image: Tensor
    eps: float = 0.3
    norm: Threat = Flow()

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        return self.image


def judged(image: Tensor, eps: float = 0.3) -> tuple[Verdict, Trace]:
    base, trace = oracle(DIFFPURE), Trace(6)
    scene = Examples(images(6), base.y, Noise(torch.arange(6)))
    trial = Trial(base.defense, Returns(image, eps))
    return judge(base.defense, scene, Draws(3, 2), trial, trace), trace


def test_the_judge_scores_no_image_it_cannot_verify() -> None:
    x = images(6)
    honest, kept = judged(warped(x, flows(x, 0.3)))
    assert max(kept.outside) < 1e-9 and 0 < honest.scores[0].size <= 0.3
    false, told = judged(1 - x)
    assert min(told.outside) > 1e-3
    assert torch.equal(false.adversarial, Flow().admitted(1 - x, x, 0.3).image)


def test_the_best_of_its_iterates_is_returned_not_the_last() -> None:
    """A step so long that Adam leaves what it found: one candidate is worse than many."""
    problem = affine(DIFFPURE)
    wild = StAdv(0.1, step_size=0.2, steps=9, tau=0.0, eot=1, candidates=1, rest=True)
    last, best = (
        problem.margin(attack.run(problem.oracle, problem.x))
        for attack in (wild, replace(wild, candidates=9))
    )
    assert (best >= last).all() and (best > last).any()


def test_a_heavy_variation_makes_a_smooth_flow() -> None:
    """With tau far above the loss, neighbours move together."""
    problem = affine(Identity())
    uneven = []
    for tau in (0.0, 1e3):
        attack = StAdv(0.4, steps=40, tau=tau, restarts=1, candidates=1)
        found = attack.run(problem.oracle, problem.x)
        uneven.append((found - problem.x).abs().mean())
    assert uneven[1] < 0.8 * uneven[0]


def test_the_paper_s_start_sees_one_side_of_every_kink() -> None:
    problem = affine(Identity())
    gain = {
        rest: problem.margin(
            StAdv(0.05, steps=30, tau=0.0, rest=rest).run(problem.oracle, problem.x)
        )
        for rest in (True, False)
    }
    assert (gain[False] > gain[True]).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: StAdv(norm=Linf()), "expected norm adpur.Flow, got Linf"),
        (lambda: StAdv(tau=-1.0), "tau must be >= 0"),
        (lambda: StAdv(eps=-0.1), "eps must be >= 0"),
        (lambda: StAdv(candidates=0), "candidates must be >= 1"),
    ],
)
def test_a_wrong_setting_is_refused(make: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()  # type: ignore[operator]


def test_a_wrong_belief_can_be_about_a_flow() -> None:
    attack = Assuming(StAdv(steps=2, eot=1), Knowledge(1), eps=0.2, norm=Flow())
    x = images(6)
    assert Flow().admitted(attack.run(oracle(), x), x, 0.2).excess.max() < 1e-9


def test_one_step_is_fgsm_in_a_ball() -> None:
    problem = affine(Identity())
    base = replace(problem.oracle, loss=Margin())
    for norm in (Linf(), L2()):
        once = OneStep(0.05, norm, loss=Margin()).run(base, problem.x)
        moved = problem.x + 0.05 * norm.direction(problem.grad)
        assert torch.allclose(once, moved, atol=1e-12)


def test_spsa_1280_asks_1280_times_an_image() -> None:
    trace, base = Trace(1), replace(oracle(Identity()), random=True)
    attack = spsa_1280(0.1)
    attack.run(replace(base.at(torch.tensor([0])), trace=trace, rows=None), images(1))
    assert isinstance(attack, SPSA) and (trace.values, trace.gradients) == ([1280], [0])
