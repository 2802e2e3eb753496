"""CGPO, its guides, the Linf variant and the objectives, on closed-form problems."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from problems import SHAPE, GaussianDenoiser, LinearClassifier, WavyDenoiser, images
from torch import Tensor

from adpur import (
    CGPO,
    L2,
    RBGM,
    VE,
    Clean,
    ConfigError,
    DiscreteVP,
    EDMWeighted,
    EpsMSE,
    ImagePGD,
    LinearVP,
    LinfNoise,
    Misdenoised,
    Noise,
    NoiseSchedule,
    Perturbation,
    Rescaled,
    Source,
    Stream,
    Weight,
    addt_paper,
    addt_released,
    pretrained,
)
from adpur.addt.case import Case
from adpur.addt.perturbation import Mixture, searched
from adpur.lit.data.digits import Digits
from adpur.types import expand, to_signed

SCHEDULES = [DiscreteVP(), LinearVP(), VE()]
SHARES = torch.tensor([0.05, 0.1, 0.3, 0.7], dtype=torch.float64)
EVERY = [
    Clean(), CGPO(), addt_paper(0.19, 0.8), addt_released(), CGPO(guide=Misdenoised()),
    CGPO(mapping=Rescaled()), LinfNoise(),
]  # fmt: skip


def case(schedule: NoiseSchedule | None = None, dtype: torch.dtype = torch.float64) -> Case:
    schedule = schedule or DiscreteVP()
    x = to_signed(images(4, dtype))
    classifier = LinearClassifier()
    y = classifier(images(4, dtype)).argmax(1)
    denoiser = WavyDenoiser(schedule=schedule)
    return Case(x, y, schedule.quantile(SHARES), denoiser, classifier)


def keys(step: int = 7) -> Noise:
    return Noise(torch.arange(4) + 10, source=Source.TRAIN, iteration=step)


def algorithm_1(case: Case, noise: Noise, weight: Weight, start: float, keep: bool) -> Tensor:
    """ADDT's Algorithm 1 line by line, one image at a time, on the keys that CGPO uses."""
    found = []
    for i in range(len(case.x)):
        x, y, t, key = case.x[i : i + 1], case.y[i : i + 1], case.t[i : i + 1], noise[i : i + 1]
        alpha, sigma = (float(f(t)) for f in (case.denoiser.schedule.alpha,
                                              case.denoiser.schedule.sigma))  # fmt: skip
        lam = min(max(weight.unit * alpha / sigma, weight.low), weight.high)
        delta = start * key.normal(x, Stream.OPTIMISE)
        total = delta.clone() if keep else torch.zeros_like(delta)
        for k in range(1, 6):
            now = key.fold(draw=k)
            rank = delta.flatten().argsort().argsort()
            gaussian = now.normal(x, Stream.ATTACK).flatten().sort().values
            mapped = gaussian[rank].view_as(x).requires_grad_()
            eps = now.normal(x, Stream.FORWARD)
            x_t = alpha * x + sigma * ((1 - lam**2) ** 0.5 * eps + lam * mapped)
            x0 = case.denoiser(x_t, t)
            loss = F.cross_entropy(case.classifier((x0 + 1) / 2), y)
            loss.backward()
            assert mapped.grad is not None
            total = total + mapped.grad
            delta = total
        found.append(total)
    return torch.cat(found)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("keep", [True, False])
def test_cgpo_is_algorithm_1(schedule: NoiseSchedule, keep: bool) -> None:
    weight, start = Weight(0.19, 0, 0.8), 1e-8 if keep else 1.0
    made = CGPO(5, weight, start=start, keep_start=keep).search(case(schedule), keys())
    wanted = algorithm_1(case(schedule), keys(), weight, start, keep)
    assert torch.allclose(made.found, wanted, rtol=1e-10, atol=1e-14)
    gaussian = keys().normal(made.delta, Stream.ATTACK)
    assert torch.equal(made.delta, RBGM()(made.found, gaussian))


def test_the_presets_are_the_two_published_forms() -> None:
    """A small start drops out of the sum; the released one is never in it."""
    c, noise = case(), keys()
    paper, released = addt_paper().search(c, noise), addt_released().search(c, noise)
    start = 1e-8 * noise.normal(c.x, Stream.OPTIMISE)
    assert not torch.equal(paper.found, released.found)
    assert torch.allclose(paper.found - start, released.found, rtol=1e-9)
    assert torch.equal(
        paper.losses[0], released.losses[0]
    )  # rank is all that the start is used for


@pytest.mark.parametrize("perturbation", EVERY, ids=str)
def test_a_batch_is_its_rows_alone(perturbation: Perturbation) -> None:
    """To rounding: the classifier's product of matrices sees the batch."""
    c, whole = case(), perturbation.search(case(), keys())
    for i in range(4):
        row = slice(i, i + 1)
        alone = Case(c.x[row], c.y[row], c.t[row], c.denoiser, c.classifier)
        made = perturbation.search(alone, keys()[row])
        assert torch.allclose(made.delta[0], whole.delta[i], rtol=1e-10)
        assert torch.equal(made.keep[0], whole.keep[i]) and torch.equal(made.add[0], whole.add[i])


@pytest.mark.parametrize("rows", [1, 3, 4, 7])
@pytest.mark.parametrize("perturbation", EVERY, ids=str)
def test_a_search_in_calls_of_fixed_rows_finds_the_same(
    perturbation: Perturbation, rows: int
) -> None:
    """Up to the last bits of a matrix product, which depend on its number of rows."""
    posed = case()
    whole, parts = perturbation.search(posed, keys()), searched(perturbation, posed, keys(), rows)
    for name in ("keep", "add", "delta", "found", "losses"):
        assert torch.allclose(getattr(parts, name), getattr(whole, name), rtol=1e-9), name


def test_with_fixed_rows_a_perturbation_does_not_depend_on_its_batch() -> None:
    """What two processes of 4 images find is what one of 8 finds, on the digits networks in fp32."""
    nets = pretrained("digits/classifier", "digits/diffusion")
    x, y, index = (v[:8] for v in Digits().stacked("train"))
    t, noise = torch.arange(60, 100, 5), Noise(index, source=Source.TRAIN)
    posed = Case(to_signed(x), y, t, nets.denoiser, nets.classifier)
    one = searched(addt_paper(0.19, 0.8), posed, noise, 2)
    for half in (slice(0, 4), slice(4, 8)):
        part = posed.rows(torch.arange(8)[half])
        assert torch.equal(
            searched(addt_paper(0.19, 0.8), part, noise[half], 2).delta, one.delta[half]
        )


@pytest.mark.parametrize("perturbation", EVERY, ids=str)
def test_a_search_repeats_and_each_step_has_its_own(perturbation: Perturbation) -> None:
    one, two, other = (perturbation.search(case(), keys(step)) for step in (7, 7, 8))
    assert torch.equal(one.delta, two.delta)
    assert isinstance(perturbation, Clean | LinfNoise) or not torch.equal(one.delta, other.delta)


def test_the_weights_the_released_code_uses() -> None:
    """clip(.03 gamma, 0, .3), seen at the labels 26, 50, 100, 150, 300, 509 of the DDPM schedule."""
    t = torch.tensor([26, 51, 101, 151, 301, 501])
    got = Weight()(DiscreteVP().snr(t).sqrt())
    wanted = torch.tensor([0.3, 0.170, 0.088, 0.058, 0.024, 0.009], dtype=torch.float64)
    assert torch.allclose(got, wanted, atol=6e-4)
    sigma = torch.tensor([0.02, 0.5, 40.0])
    assert torch.allclose(Weight()(VE().snr(sigma).sqrt()), (0.03 / sigma.double()).clamp(0, 0.3))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_eps_mse_is_the_distance_of_the_noise(schedule: NoiseSchedule) -> None:
    """||gamma (x0 - P)||^2 == ||eps_hat - eps'||^2: gamma inside the norm, unlike Eq. 8."""
    c = case(schedule)
    mixture = CGPO().search(c, keys())
    eps = mixture(keys().normal(c.x, Stream.FORWARD))
    seen = c.restored(eps)
    by_noise = (c.noise_of(seen) - eps).square().flatten(1).mean(1)
    assert torch.allclose(EpsMSE().losses(c, seen.x0), by_noise, rtol=1e-9)
    gamma = expand(c.ratio, c.x)
    eq_8 = (gamma * (c.x - seen.x0).square()).flatten(1).mean(1)
    assert not torch.allclose(EpsMSE().losses(c, seen.x0), eq_8, rtol=0.1)


def test_edm_weights() -> None:
    c, sd = case(VE()), 0.5
    sigma = c.t.double()
    wanted = (sigma**2 + sd**2) / (sigma * sd) ** 2
    assert torch.allclose(EDMWeighted(sd).weight(c), wanted, rtol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_quantiles_are_the_training_times(schedule: NoiseSchedule) -> None:
    t = schedule.quantile((torch.arange(10_000).double() + 0.5) / 10_000)
    assert (t.diff() >= 0).all() and t[0] > 0 and t[-1] <= schedule.end
    if isinstance(schedule, DiscreteVP):
        assert torch.equal(t.unique(), torch.arange(1, 1001)) and int((t == 500).sum()) == 10
    if isinstance(schedule, VE):
        logs = t.log()
        assert abs(float(logs.mean()) + 1.2) < 1e-3 and abs(float(logs.std()) - 1.2) < 3e-3


def test_the_mixture_keeps_the_variance() -> None:
    made = CGPO(weight=Weight(0.19, 0, 0.8)).search(case(), keys())
    assert torch.allclose(made.keep**2 + made.add**2, torch.ones(4, dtype=torch.float64))
    none = Clean().search(case(), keys())
    eps = keys().normal(case().x, Stream.FORWARD)
    assert torch.equal(none(eps), eps)


def test_linf_noise_is_a_perturbed_image() -> None:
    """With weight gamma_t, diffusing x_0 by eps' is diffusing x_0 + delta by eps."""
    c, eps8 = case(), 8 / 255
    made = LinfNoise(weight=Weight(1.0, 0.0, 1e9)).search(c, keys())
    assert made.delta.abs().max() <= 2 * eps8 + 1e-12
    moved = c.x + made.delta
    assert moved.min() >= -1 - 1e-12 and moved.max() <= 1 + 1e-12
    eps = keys().normal(c.x, Stream.FORWARD)
    schedule = c.denoiser.schedule
    x_t = schedule.diffuse(c.x, c.t, made(eps))
    assert torch.allclose(x_t, schedule.diffuse(moved, c.t, eps), rtol=1e-12)
    assert torch.equal(LinfNoise().search(c, keys()).add, c.ratio.clamp(0, 10))


def test_image_pgd_reaches_the_corner_of_a_linear_problem() -> None:
    """A two-class linear classifier's worst point is -eps sign(w), wherever the images allow."""
    classifier = LinearClassifier(classes=2)
    x, pgd = 0.3 + 0.4 * images(6), ImagePGD(eps=0.1, step_size=0.05, steps=4)
    y = classifier(x).argmax(1)
    toward = (classifier.weight[1] - classifier.weight[0]).detach().sign().view(1, *SHAPE)
    corner = x + 0.1 * torch.where((y == 0).view(-1, 1, 1, 1), toward, -toward)
    noise = Noise(torch.arange(6))
    assert torch.allclose(pgd.against(classifier, x, y, noise), corner)
    assert classifier.weight.grad is None and classifier.weight.requires_grad
    assert torch.allclose(ImagePGD(0.1, steps=2).against(classifier, x, y, noise), corner)
    started = ImagePGD(0.1, 0.05, 1, random_start=True).against(classifier, x, y, noise)
    assert (started - x).abs().max() <= 0.1 + 1e-12 and not torch.allclose(started, corner)


def test_image_pgd_in_l2_goes_along_the_weights() -> None:
    """A two-class linear classifier's worst point of a sphere is along w, of the whole radius."""
    classifier, x = LinearClassifier(classes=2), 0.3 + 0.4 * images(6)
    y = classifier(x).argmax(1)
    w = (classifier.weight[1] - classifier.weight[0]).detach().view(1, *SHAPE)
    toward = 0.2 * w / w.norm() * torch.where((y == 0).view(-1, 1, 1, 1), 1, -1)
    noise, pgd = Noise(torch.arange(6)), ImagePGD(eps=0.2, steps=3, norm=L2())
    assert torch.allclose(pgd.against(classifier, x, y, noise), x + toward)
    started = replace(pgd, random_start=True, steps=1).against(classifier, x, y, noise)
    assert (started - x).flatten(1).norm(dim=1).max() <= 0.2 + 1e-12
    with pytest.raises(ConfigError, match="LinfNoise wants pgd with norm"):
        LinfNoise(pgd)


def test_what_is_found_is_harder_on_the_digits_networks() -> None:
    """Under fresh noise the guide's loss is above that of random noise; the classifier's is 3 x."""
    nets = pretrained("digits/classifier", "digits/diffusion")
    x, y, index = (part[:64] for part in Digits().stacked("validation"))
    c = Case(to_signed(x), y, torch.full((64,), 60), nets.denoiser, nets.classifier)
    noise = Noise(index, source=Source.TRAIN)

    def loss(mixture: Mixture) -> float:
        with torch.no_grad():
            draws = [noise.fold(draw=50 + k).normal(c.x, Stream.FORWARD) for k in range(4)]
            seen = [c.logits(c.restored(mixture(eps)).x0) for eps in draws]
        return float(torch.stack([F.cross_entropy(s, y) for s in seen]).mean())

    clean = loss(Clean().search(c, noise))
    assert loss(addt_paper(0.19, 0.8).search(c, noise)) > 3 * clean
    assert loss(addt_released(0.19, 0.8).search(c, noise)) > 3 * clean
    assert loss(LinfNoise(ImagePGD(0.2, 0.1, 5)).search(c, noise)) > 3 * clean
    mse = CGPO(weight=Weight(0.19, 0, 0.8), guide=Misdenoised()).search(c, noise)
    rises = int((mse.losses[-1] > mse.losses[0]).sum())
    assert rises > 48  # 59 of 64; where a rise is a coin's toss, more than 48 have p = 1e-5


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: CGPO(steps=0), "steps"),
        (lambda: CGPO(weight=Weight(high=1.1)), "high=1.1"),
        (lambda: Weight(low=0.4, high=0.3), "low <= high"),
        (lambda: ImagePGD(eps=0.0), "positive"),
    ],
)
def test_errors_in_words(make: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make()


def test_gaussian_problem_by_hand() -> None:
    """One iteration, Gaussian denoiser, linear classifier: the gradient in closed form."""
    denoiser, classifier = GaussianDenoiser(), LinearClassifier()
    x, t = to_signed(images(3)), torch.tensor([10, 100, 400])
    y = torch.tensor([0, 1, 2])
    noise = Noise(torch.arange(3))
    made = CGPO(1, Weight(0.19, 0, 0.8), start=1.0, keep_start=False).search(
        Case(x, y, t, denoiser, classifier), noise
    )
    alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
    lam = (0.19 * alpha / sigma).clamp(0, 0.8)
    first = noise.fold(draw=1)
    start = RBGM()(noise.normal(x, Stream.OPTIMISE), first.normal(x, Stream.ATTACK))
    eps = first.normal(x, Stream.FORWARD)
    x_t = expand(alpha, x) * x + expand(sigma, x) * (
        expand((1 - lam**2).sqrt(), x) * eps + expand(lam, x) * start
    )
    gain = denoiser.var * alpha / (denoiser.var * alpha**2 + sigma**2)
    probs = classifier((denoiser(x_t, t) + 1) / 2).softmax(1)
    slope = (probs - F.one_hot(y, 3)) @ classifier.weight / 2
    wanted = (slope * (gain * sigma * lam).view(-1, 1)).view_as(x)
    assert torch.allclose(made.found, wanted.detach(), rtol=1e-9)
