"""Each method against its own closed form, its paper's counts, or an independent implementation."""

import math
from dataclasses import replace

import pytest
import torch
from problems import GaussianDenoiser, LinearClassifier, WavyDenoiser, images, networks
from purifier_rows import DDPM, ROWS, every_row, reweighted
from torch import Tensor

from adpur import (
    BPDA,
    MSE,
    SR,
    SSIM,
    VE,
    Anchored,
    AttackError,
    Budgeted,
    Chain,
    Checkpointed,
    ConfigError,
    Constant,
    Corrected,
    Defense,
    Diffusion,
    DiscreteVP,
    Exact,
    Heun,
    Identity,
    Inclusive,
    Karras,
    Knowledge,
    LevelGradient,
    LinearVP,
    Majority,
    MeanLogits,
    Networks,
    Noise,
    Oracle,
    Purifier,
    Resized,
    Source,
    Stream,
    Strided,
    Substitute,
    Surrogate,
    addt_ddpm,
    ddpm,
    edm,
    gdmp,
    gns,
    gns_surrogate,
    one_shot,
    revpure,
    scoreopt_n,
    scoreopt_o,
    vp_sde,
)
from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import NoiseSchedule
from adpur.purify.base import Context

NOISE = Noise(torch.arange(6), seed=3)
SCHEDULES: list[NoiseSchedule] = [DiscreteVP(), LinearVP(), VE()]


def signed(purifier: Purifier, x: Tensor, denoiser: Denoiser, noise: Noise = NOISE) -> Tensor:
    return 2 * Defense(purifier, networks(denoiser), 4)(x, noise).image - 1


@pytest.mark.parametrize(
    ("purifier", "calls"),
    [
        (ddpm(), 100),
        (ddpm(100, 20, corrector=0.16), 10),
        (addt_ddpm(100, 20), 6),
        (addt_ddpm(100, 1), 101),
        (vp_sde(), 100),
        (vp_sde(0.1, 5e-3), 20),
        (edm(), 99),
        (edm(churn=6), 99),
        (gdmp(), 4 * 36),
        (gdmp(50, 2), 2 * 50),
        (gns(), 470),
        (gns_surrogate(), 7),
        (revpure(150), 150),
        (revpure(150, subsequence=20), 20),
        (scoreopt_o(), 5),
        (scoreopt_o(objective=SR()), 10),
        (scoreopt_n(), 21),
        (scoreopt_n(steps=5, rounds=3, objective=SR()), 3 * 11),
        (one_shot(), 1),
    ],
    ids=str,
)
def test_measured_calls(purifier: Purifier, calls: int) -> None:
    out = Defense(purifier, networks(), 2)(images(2), NOISE[:2])
    assert out.nfe.tolist() == [calls] * 2


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_denoiser_is_the_same_function_on_every_schedule(schedule: NoiseSchedule) -> None:
    """E[x0 | x_t] depends on the noise-to-signal ratio alone, up to the scale of x_t."""
    for own in SCHEDULES:
        denoiser = GaussianDenoiser(schedule=own)
        x, t = images(5), schedule.at(torch.tensor([0.01, 0.1, 0.5, 2.0, 9.0]).double())
        there = GaussianDenoiser(schedule=schedule)
        assert torch.allclose(denoiser.on(schedule)(x, t), there(x, t), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_at_inverts_the_ratio(schedule: NoiseSchedule) -> None:
    t = torch.linspace(0, 1, 301).double() * schedule.end
    ratio = schedule.sigma(t) / schedule.alpha(t)
    assert torch.allclose(schedule.at(ratio), t, rtol=1e-9, atol=1e-9)


def exact_flow(x_t: Tensor, sigma: float) -> Tensor:
    """The probability flow of N(0.3, 0.25) in sigma space, from sigma to 0."""
    return 0.3 + 0.5 * (x_t - 0.3) / (0.25 + sigma**2) ** 0.5


def test_heun_is_of_second_order() -> None:
    denoiser, x = GaussianDenoiser(), images(6)
    x_t = 2 * x - 1 + 0.5 * NOISE.normal(x, Stream.FORWARD)
    errors = [
        (signed(edm(count=n, clamp=False), x, denoiser) - exact_flow(x_t, 0.5)).abs().max().item()
        for n in (10, 20, 40)
    ]
    assert errors[0] < 1e-2
    assert errors[0] / errors[1] > 3.4 and errors[1] / errors[2] > 3.4


def test_heun_is_algorithm_2_of_edm() -> None:
    """Written out for one image with the same keyed noise, churn switched on in between."""
    denoiser, x = WavyDenoiser(), images(1)
    count, sigma, rho, low = 6, 0.5, 7.0, 0.002
    times = [
        (sigma ** (1 / rho) + i / (count - 1) * (low ** (1 / rho) - sigma ** (1 / rho))) ** rho
        for i in range(count)
    ] + [0.0]
    d = denoiser.on(VE())
    keys = NOISE[:1]
    z = 2 * x - 1 + sigma * keys.normal(x, Stream.FORWARD)
    gamma = min(2.0 / count, math.sqrt(2) - 1)
    for i in range(count):
        t, s = times[i], times[i + 1]
        raised = t + gamma * t if 0.01 <= t <= 0.46 else t
        churn = keys.fold(step=count - i).normal(x, Stream.CHURN)
        hat = z + (raised**2 - t**2) ** 0.5 * 1.007 * churn
        at = torch.tensor([raised], dtype=torch.float64)
        slope = (hat - d(hat, at)) / raised
        z = hat + (s - raised) * slope
        if s > 0:
            again = (z - d(z, torch.tensor([s], dtype=torch.float64))) / s
            z = hat + (s - raised) * (slope + again) / 2
    found = signed(edm(count=count, churn=2.0, clamp=False), x, denoiser, keys)
    assert torch.allclose(found, z, rtol=1e-10, atol=1e-12)


def test_the_vp_sde_on_a_gaussian_has_its_mean_and_spread() -> None:
    x = torch.full((2000, 1, 4, 4), 0.9, dtype=torch.float64)
    purifier = vp_sde(1.0, 2e-3)
    out = 2 * Defense(purifier, networks(GaussianDenoiser()), 500)(x).image - 1
    assert abs(out.mean() - 0.3) < 0.015 and abs(out.std() - 0.5) < 0.02


def test_the_probability_flow_ode_converges_at_first_order() -> None:
    denoiser, x, schedule = GaussianDenoiser(), images(6), LinearVP()
    t = torch.full((6,), 0.4, dtype=torch.float64)
    x_t = schedule.diffuse(2 * x - 1, t, NOISE.normal(x, Stream.FORWARD))
    alpha, sigma = schedule.alpha(t)[0], schedule.sigma(t)[0]
    exact = exact_flow(x_t / alpha, float(sigma / alpha))
    errors = [
        (signed(vp_sde(0.4, dt, eta=0), x, denoiser) - exact).abs().max().item()
        for dt in (1e-3, 2e-3, 4e-3)
    ]
    assert errors[0] < 5e-3
    assert errors[1] / errors[0] == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(
    ("purifier", "t"), [(vp_sde(0.1, 1e-3), 0.1), (vp_sde(0.1, 2.5e-4), 0.1), (ddpm(100), None)],
    ids=str,
)  # fmt: skip
def test_a_reverse_process_samples_the_posterior(purifier: Purifier, t: float | None) -> None:
    """Of N(m, v) from x: mean m + g alpha (x - m) and variance v sigma^2 / S + (g sigma)^2, with
    S = alpha^2 v + sigma^2 and g = v alpha / S, up to the discretisation.
    """
    x = torch.full((4000, 1, 4, 4), 0.7, dtype=torch.float64)
    out = 2 * Defense(purifier, networks(GaussianDenoiser()), 1000)(x).image - 1
    schedule: NoiseSchedule = DiscreteVP() if t is None else LinearVP()
    at = torch.tensor(100 if t is None else t)
    a, s2, v = schedule.alpha(at), schedule.sigma(at) ** 2, 0.25
    total = a**2 * v + s2
    g = v * a / total
    mean = 0.3 + g * a * (0.4 - 0.3)
    spread = (v * s2 / total + g**2 * s2).sqrt()
    assert abs(out.mean() - mean) < 5e-3
    assert abs(out.std() / spread - 1) < 0.015  # DDPM's posterior variance is a little small


@pytest.mark.parametrize("algorithm", ["o", "o sr", "n", "n released"])
def test_scoreopt_is_the_papers_algorithm_under_torchs_adam(algorithm: str) -> None:
    denoiser, x = WavyDenoiser(), images(3)
    keys, sigma, steps = NOISE[:3], 0.4, 4
    d = denoiser.on(VE())
    at, start = torch.full((3,), sigma, dtype=torch.float64), 2 * x - 1
    z = start.clone()
    e = keys.fold(step=1).normal(x, Stream.FORWARD)
    if algorithm[0] == "n":
        z = z + sigma * e
    z.requires_grad_()
    adam = torch.optim.Adam([z], lr=0.05)
    for left in range(steps, 0, -1):
        e1, e2 = (keys.fold(step=3 * left + k).normal(x, Stream.OPTIMISE) for k in (1, 2))
        if algorithm[0] == "o":
            denoised = d(z + sigma * e1, at)
            loss = ((denoised - z) ** 2).sum()
        else:
            denoised = d(z, at)
            target = start if algorithm == "n" else z - sigma * e
            loss = ((denoised - target) ** 2).sum()
        if "sr" in algorithm:
            loss = loss + ((denoised - d(start + sigma * e2, at)) ** 2).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    wanted = z.detach() if algorithm[0] == "o" else d(z.detach(), at)
    settings = {"sigma": sigma, "width": 0.0, "lr": 0.05, "steps": steps}
    if algorithm[0] == "o":
        made = scoreopt_o(**settings, **({"objective": SR()} if "sr" in algorithm else {}))
    else:
        made = scoreopt_n(**settings, as_released=algorithm == "n released")
    found = Defense(replace(made, clamp=False), networks(denoiser), 3)(x, keys).image
    assert torch.allclose(2 * found - 1, wanted, rtol=1e-9, atol=1e-10)


def test_scoreopts_levels_fill_their_range() -> None:
    from adpur.purify.scoreopt import ScoreOpt, _Run

    keys = Noise(torch.arange(4000))
    run = _Run(ScoreOpt(width=0.4), WavyDenoiser(), keys, torch.full((4000,), 0.25).double())
    sigma = run.sigma(3).sort().values
    assert torch.allclose(sigma, torch.linspace(0.15, 0.35, 4000).double(), atol=5e-3)
    assert not torch.equal(run.sigma(3), run.sigma(2))


def test_mse_guidance_is_its_formula() -> None:
    """x_s moves by Sigma s_t 2 (ref_t - x_t) / D, with s_t = scale 3 255 / (2 budget) sigma / alpha."""
    schedule, x, ref = DiscreteVP(), images(6), images(6, seed=9)
    t, s = torch.full((6,), 36), torch.full((6,), 35)
    keys = NOISE.fold(step=4)
    target = schedule.diffuse(ref, t, keys.normal(x, Stream.GUIDANCE))
    abar_t, abar_s = (schedule.alpha(v)[0] ** 2 for v in (t, s))
    beta = 1 - abar_t / abar_s
    variance = beta * (1 - abar_s) / (1 - abar_t)
    scale = 6e4 * 3 * 255 / (2 * 8) * ((1 - abar_t) / abar_t).sqrt()
    wanted = variance * scale * 2 * (target - x) / 16
    found = MSE().shift(x, ref, t, s, schedule, keys)
    assert torch.allclose(found, wanted, rtol=1e-10)


def likeness(a: Tensor, b: Tensor) -> float:
    from torchmetrics.functional.image import structural_similarity_index_measure as similarity

    found = similarity(2 * a.detach() - 1, 2 * b - 1, sigma=0.3, data_range=2.0)
    return float(found)  # type: ignore[arg-type]


def test_guidance_pulls_towards_its_input() -> None:
    x = images(6)
    free, mse, ssim = (
        Defense(gdmp(100, 1, 5, guidance), networks(GaussianDenoiser(0.3, 0.05)), 4)(x).image
        for guidance in (None, MSE(3e2), SSIM(30, width=0.3))
    )
    assert (mse - x).norm() < 0.7 * (free - x).norm()
    assert likeness(ssim, x) > 0.5 > 2 * likeness(free, x)


def test_rounds_are_purifiers_one_after_another() -> None:
    x, nets = images(6), networks()
    chain = Defense(gns((20, 40), 20), nets, 4)(x, NOISE)
    first = Defense(ddpm(20, 20), nets, 4)(x, NOISE).image
    context = Context(nets, 4)
    second, keys = ddpm(40, 20), NOISE.fold(stage=1)
    norm = torch.full((6,), torch.nan, dtype=torch.float64)
    known = Defense(second, nets, 4).leveled(norm, torch.zeros(6).long(), keys)
    assert torch.equal(chain.image, second.purify(first, keys, known, context).image)
    assert torch.equal(Defense(Chain([DDPM]), nets, 4)(x).image, Defense(DDPM, nets, 4)(x).image)


def test_ssni_over_rounds_measures_once_and_reweights_each() -> None:
    defense = Defense(reweighted(gns((20, 100), 5)), networks(), 4)
    out = defense(images(6), NOISE)
    share = out.levels / torch.tensor([20.0, 100.0])
    assert torch.allclose(share[:, 0], share[:, 1])
    again = Defense(ROWS["ssni over gdmp, recomputed"], networks(), 4)(images(6), NOISE)
    extra = again.nfe - (again.snapped / 20).sum(1).long()
    assert extra.tolist() == [10] * 6  # the first norm's five calls and the second round's


class Blurry(WavyDenoiser):
    """A denoiser of 8 x 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = (1, 8, 8)


def test_resized_is_bilinear_both_ways_and_differentiable() -> None:
    x = images(5)
    purifier = Resized(ddpm(40, 20), 8)
    defense = Defense(purifier, networks(Blurry()), 4)
    big = torch.nn.functional.interpolate(x, (8, 8), mode="bilinear", align_corners=False)
    inner = Defense(ddpm(40, 20), Networks(torch.nn.Flatten(), Blurry()), 4)(big, NOISE[:5]).image
    small = torch.nn.functional.interpolate(inner, (4, 4), mode="bilinear", align_corners=False)
    assert torch.equal(defense(x, NOISE[:5]).image, small)
    exact = Oracle(defense, purifier, torch.zeros(5).long(), NOISE[:5])
    _, grad = exact.value_and_grad(x, 0)
    step = 1e-6 * torch.sign(x - 0.5)
    up, down = (exact.value_and_grad(x + k * step, 0)[0] for k in (1, -1))
    assert torch.allclose((grad * step).flatten(1).sum(1), (up - down) / 2, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"wrap the purifier in adpur\.Resized"):
        Defense(ddpm(40, 20), networks(Blurry()), 4)


@every_row
def test_a_pool_of_one_replays_every_row(purifier: Purifier) -> None:
    """What the attacker simulates is what the evaluation draws, whoever draws."""
    knowledge, x = Knowledge(pool=1), images(6)
    nets = networks()
    for ensemble in (MeanLogits(1), Majority(1)):
        defense = Defense(purifier, nets, 4, ensemble=ensemble)
        evaluation = defense(x, knowledge.evaluate(NOISE, 1))
        attack = defense(x, knowledge.attack(NOISE.fold(source=Source.ATTACK), 7, 1))
        assert torch.equal(evaluation.image, attack.image)
        assert torch.equal(evaluation.levels, attack.levels)


def test_votes_are_purifications_of_their_own() -> None:
    x, nets = images(6), networks()
    votes = [Defense(DDPM, nets, 4)(x, NOISE.fold(vote=v)) for v in range(3)]
    mean = Defense(DDPM, nets, 4, ensemble=MeanLogits(3))(x, NOISE)
    assert torch.equal(mean.logits, torch.stack([v.logits for v in votes]).mean(0))
    assert torch.equal(mean.image, votes[0].image) and mean.nfe.tolist() == [15] * 6
    classes = torch.stack([v.logits.argmax(1) for v in votes])
    named = Defense(DDPM, nets, 4, ensemble=Majority(3))(x, NOISE).logits.argmax(1)
    assert all(named[i] == classes[:, i].mode().values or len(set(classes[:, i].tolist())) == 3
               for i in range(6))  # fmt: skip


def test_a_tie_of_votes_goes_to_the_more_probable_class() -> None:
    logits = torch.tensor([[[2.0, 0.0, 1.9]], [[0.0, 0.0, 9.0]]])
    assert Majority(2).combine(logits).argmax(1).item() == 2
    assert Majority(2).combine(logits.flip(0)).argmax(1).item() == 2


def oracle(purifier: Purifier, nets: Networks | None = None, **kwargs: object) -> Oracle:
    defense = Defense(purifier, nets or networks(), 4)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    return Oracle(defense, purifier, y, NOISE, **kwargs)  # type: ignore[arg-type]


@pytest.mark.parametrize("knowledge", [Knowledge(), Knowledge(pool=2)], ids=repr)
@pytest.mark.parametrize("levels", [LevelGradient(through=True), LevelGradient(evade=0.3),
                                    LevelGradient(True, 0.3)], ids=repr)  # fmt: skip
def test_gradients_through_the_level_equal_finite_differences(
    levels: LevelGradient, knowledge: Knowledge
) -> None:
    x = images(6)
    exact = oracle(ROWS["ssni over vp_sde"], levels=levels, knowledge=knowledge)
    if not levels.through:  # what moves t(x) is a constant here, so freeze it by a flat level
        exact = oracle(reweighted(vp_sde(0.1, 0.03), _flat()), levels=levels, knowledge=knowledge)
    _, grad = exact.value_and_grad(x, 0, 3)
    step = 1e-6 * torch.cos(50 * x)
    up, down = (exact.value_and_grad(x + k * step, 0, 3)[0] for k in (1, -1))
    assert torch.allclose((grad * step).flatten(1).sum(1), (up - down) / 2, rtol=2e-5, atol=1e-12)


def _flat():  # type: ignore[no-untyped-def]
    from adpur import Flat

    return Flat()


def test_a_rounded_level_passes_its_gradient_on() -> None:
    """On an integer grid t(x) moves in jumps; the attacker may still want its slope."""
    x = images(6)
    row = reweighted(ddpm(100, 20))
    _, constant = oracle(row).value_and_grad(x, 0)
    _, through = oracle(row, levels=LevelGradient(through=True)).value_and_grad(x, 0)
    assert torch.isfinite(through).all() and not torch.allclose(constant, through)


def test_a_substitute_has_levels_of_its_own() -> None:
    x = images(6)
    deployed, other = reweighted(gns((20, 40), 20)), reweighted(ddpm(60, 20))
    defense = Defense(deployed, networks(), 4)
    view = Substitute(other).view(deployed)
    mixed = Oracle(defense, view, torch.zeros(6).long(), NOISE)
    alone = Oracle(Defense(other, networks(), 4), other, torch.zeros(6).long(), NOISE)
    assert torch.equal(mixed.value_and_grad(x, 0, 2)[1], alone.value_and_grad(x, 0, 2)[1])


@pytest.mark.parametrize("gib", [1e-6, 5e-6, 2e-5, 1e-3])
def test_a_budget_is_kept_and_changes_no_gradient(gib: float) -> None:
    x, row = images(6), ddpm(100, 5)
    view = Budgeted(gib).view(row)
    plain = oracle(row).value_and_grad(x, 0, 4)[1]
    defense = Defense(row, networks(), 4, workers=2)
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    found = Oracle(defense, view, y, NOISE).value_and_grad(x, 0, 4)[1]
    assert torch.allclose(found, plain, rtol=1e-12, atol=1e-15)
    ledger = view.memory.ledger  # type: ignore[attr-defined]
    assert ledger.peak <= gib * 2**30 and ledger.used == 0
    assert (ledger.peak > 0) == (gib > 3e-6)


class Broken(WavyDenoiser):
    """A denoiser whose gradient is lost at one time."""

    def __init__(self, t: int, how: str) -> None:
        super().__init__()
        self.t, self.how = t, how

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        out = super().denoise(x_t, t)
        if int(t.max()) != self.t:
            return out
        return out + ((x_t - x_t) ** 2).sqrt() if self.how == "nan" else out


@pytest.mark.parametrize(("t", "place"), [(100, 1), (60, 3), (20, 5)])
def test_a_gradient_that_is_lost_says_where(t: int, place: int) -> None:
    lost = oracle(DDPM, networks(Broken(t, "nan")))
    with pytest.raises(
        AttackError, match=rf"not finite.*step {place} of the purifier's 5.*dataset rows \[0, 1"
    ):
        lost.value_and_grad(images(6), 0)


def test_a_gradient_that_vanishes_everywhere_is_an_error() -> None:
    class Deaf(LinearClassifier):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.round())

    with pytest.raises(AttackError, match="zero already at the purified image: look at the class"):
        oracle(DDPM, Networks(Deaf(), WavyDenoiser())).value_and_grad(images(6), 0)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: Defense(Diffusion(step=Heun()), networks()), "schedule: .class_path: adpur.VE."),
        (lambda: Defense(replace(vp_sde(), schedule=None), networks()), "adpur.LinearVP"),
        (lambda: Defense(vp_sde(1.5), networks()), r"outside the schedule's 0\.\.1"),
        (lambda: Defense(edm(100.0), networks()), r"outside the schedule's 0\.\.80"),
        (lambda: Defense(ddpm(110, 20), networks()), "nearest valid t"),
        (lambda: Defense(scoreopt_o(100.0), networks()), "sigma in 0"),
        (lambda: Chain([]), "at least one round"),
        (lambda: Chain([gdmp()]), "no Chain among them"),
        (lambda: gns_surrogate((30, 50), (1,)), "as many counts"),
        (lambda: Diffusion(scaled=True), "inject: false"),
        (lambda: Karras(1), "count >= 2"),
        (lambda: scoreopt_n(steps=2000), "at most 1333 steps"),
        (lambda: Majority(0), "votes must be"),
        (lambda: MSE(budget=0), "budget > 0"),
        (lambda: Budgeted(0), "positive GiB"),
        (lambda: Surrogate().view(scoreopt_o()), "ScoreOpt has no Grid to replace"),
        (lambda: reweighted(Identity()), "Identity has no NoiseLevel to replace"),
        (lambda: LevelGradient(evade=-1), "evade must be >= 0"),
        (lambda: LevelGradient(True).check(DDPM), "comes from a score norm"),
        (lambda: LevelGradient(True).check(BPDA().view(ROWS["ssni_n"])), "BPDA has no gradient"),
        (lambda: edm(churn=-3), "S_churn"),
        (lambda: vp_sde(eta=-1), r"eta must be in \[0, 1\]"),
        (lambda: ddpm(corrector=math.nan), "snr must be positive"),
        (lambda: edm(s_min=0.5, s_max=0.4), "low < high"),
        (lambda: edm(rho=0), "rho > 0"),
        (lambda: ddpm(jitter=-1), "width must be positive"),
        (lambda: Anchored(-1), "must be >= 0"),
        (lambda: Corrected(Corrected(Heun())), "corrects once"),
        (lambda: Chain([Resized(Chain([DDPM]), 4)]), "no Chain among them"),
        (lambda: Surrogate(Inclusive()).view(DDPM), "cannot walk Inclusive"),
        (lambda: Defense(vp_sde(1.0, 2e-4), networks()), "at most 4095"),
        (lambda: Defense(gdmp(40, 2, 20, SSIM()), networks()), "smaller width"),
        (
            lambda: Defense(DDPM, networks(), 4, ensemble=MeanLogits(2))(
                images(6), levels=Defense(DDPM, networks(), 4).levels(images(6), NOISE)
            ),
            r"expected levels \(1, 12\), got \(1, 6\)",
        ),
    ],
)
def test_settings_that_cannot_work(make, why: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=why):
        make()


@pytest.mark.parametrize("purifier", [edm(count=4), vp_sde(0.1, 0.03)], ids=str)
def test_a_surrogate_must_walk_the_rows_own_times(purifier: Purifier) -> None:
    """On sigmas of 0.5, DDPM's integer steps would walk nothing: an undefended classifier."""
    nets = networks()
    with pytest.raises(ConfigError, match="Strided cannot walk the times of"):
        Surrogate().view(purifier).check(nets, nets.shape)


def test_ddpm_rows_ask_for_ddpm_steps_on_other_networks() -> None:
    nets = networks(GaussianDenoiser(schedule=VE()))
    with pytest.raises(ConfigError, match=r"schedule: .class_path: adpur\.DiscreteVP."):
        Defense(ddpm(75), nets)
    there = Defense(ddpm(60, 20, schedule=DiscreteVP()), nets, 4)(images(4), NOISE[:4]).image
    own = Defense(ddpm(60, 20), networks(GaussianDenoiser()), 4)(images(4), NOISE[:4]).image
    assert torch.allclose(there, own, rtol=1e-9, atol=1e-11)


def test_fixed_large_adds_noise_on_every_schedule() -> None:
    from adpur import Ancestral

    t, s = torch.tensor([0.5]).double(), torch.tensor([0.3]).double()
    spread, _ = Ancestral(variance="fixed_large").coefficients(t, s, VE())
    assert spread.item() == pytest.approx((0.25 - 0.09) ** 0.5)


@pytest.mark.parametrize("row", ["ssni_n", "ssni_l", "ssni over edm"])
def test_gradients_through_the_level_depend_on_no_batch_mate(row: str) -> None:
    x, purifier = images(6), ROWS[row]
    levels = LevelGradient(through=True)
    together = oracle(purifier, levels=levels).value_and_grad(x, 0)[1]
    defense = Defense(purifier, networks(), 4)
    for i in range(6):
        y = torch.tensor([0, 1, 2, 0, 1, 2])[i : i + 1]
        alone = Oracle(defense, purifier, y, NOISE[i : i + 1], levels=levels)
        assert torch.allclose(together[i : i + 1], alone.value_and_grad(x[i : i + 1], 0)[1],
                              rtol=1e-12, atol=1e-14)  # fmt: skip


def test_recomputed_levels_are_differentiated_too() -> None:
    x = images(6)
    rounds = [edm(0.3, 3, clamp=False), edm(0.2, 3, clamp=False)]
    purifier = replace(reweighted(Chain(rounds)), recompute=True)  # type: ignore[type-var]
    exact = oracle(purifier, levels=LevelGradient(through=True))
    _, grad = exact.value_and_grad(x, 0)
    step = 1e-6 * torch.cos(50 * x)
    up, down = (exact.value_and_grad(x + k * step, 0)[0] for k in (1, -1))
    assert torch.allclose((grad * step).flatten(1).sum(1), (up - down) / 2, rtol=2e-5, atol=1e-12)


def test_dw_forward_still_averages_over_the_reverse_noise() -> None:
    """Only what is known in full needs no more copies than its pool."""
    forward = Knowledge(1, frozenset({Stream.FORWARD}))
    keys = forward.attack(NOISE, 0, 10)
    assert len(keys.index) == 60
    x = images(6).repeat(10, 1, 1, 1)
    for stream, copies in ((Stream.FORWARD, 1), (Stream.REVERSE, 10)):
        drawn = keys.normal(x, stream).view(10, 6, -1)
        assert len(drawn[:, 0].unique(dim=0)) == copies


def test_a_pool_of_one_replays_every_vote() -> None:
    """The attacker who knows all noise sees the prediction that is scored, not one of its votes."""
    x, knowledge = images(6), Knowledge(pool=1)
    defense = Defense(DDPM, networks(), 4, ensemble=MeanLogits(3))
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    keys = knowledge.attack(NOISE, 5, 7, votes=3)
    single = Defense(DDPM, networks(), 4)
    votes = [single(x, knowledge.evaluate(NOISE, 1).fold(vote=v)).logits for v in range(3)]
    seen = single(x.repeat(3, 1, 1, 1), keys).logits.view(3, 6, -1)
    assert torch.equal(seen, torch.stack(votes))
    scored = defense(x, knowledge.evaluate(NOISE, 1)).logits
    assert torch.equal(scored, (votes[0] + votes[1] + votes[2]) / 3)
    value, grad, _ = Oracle(defense, DDPM, y, NOISE, knowledge).per_draw(x, 5, 7)
    assert value.shape == (3, 6) and grad.shape == (3, *x.shape)


def test_streams_are_named_or_refused() -> None:
    assert Knowledge(1, ["forward"]).streams == {Stream.FORWARD}  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no stream 'BACKWARD'; there is: "):
        Knowledge(1, ["backward"])  # type: ignore[arg-type]


@pytest.mark.parametrize("ensemble", [MeanLogits(10), Majority(10)], ids=repr)
def test_votes_of_a_batch_equal_its_rows_alone(ensemble: MeanLogits | Majority) -> None:
    x = images(37, torch.float32)
    keys, defense = Noise(torch.arange(37)), Defense(DDPM, networks(), 8, ensemble=ensemble)
    together = defense(x, keys).logits
    for i in range(0, 37, 6):
        assert torch.equal(together[i : i + 1], defense(x[i : i + 1], keys[i : i + 1]).logits)


def test_a_budgets_threads_decide_no_bit() -> None:
    """Which steps are kept depends on the threads' timing, their gradients do not."""
    x, row = images(6, torch.float32), scoreopt_o(steps=4, objective=SR())
    y = torch.tensor([0, 1, 2, 0, 1, 2])
    plain = Oracle(Defense(row, networks(), 4), Checkpointed().view(row), y, NOISE)
    wanted = plain.value_and_grad(x, 0, 6)[1]
    for workers in (1, 3):
        defense = Defense(row, networks(), 4, workers=workers)
        found = Oracle(defense, Budgeted(2e-5).view(row), y, NOISE).value_and_grad(x, 0, 6)[1]
        assert torch.equal(found, wanted)


def test_a_saturated_image_alone_is_no_error() -> None:
    """In fp32 its softmax is exactly one: a zero gradient that says nothing is broken."""
    nets = Networks(LinearClassifier(scale=1e4), WavyDenoiser())
    x = images(6, torch.float32)
    defense = Defense(DDPM, nets, 4)
    y = defense(x, Knowledge().attack(NOISE, 0, 1)).logits.argmax(1)
    assert not Oracle(defense, DDPM, y, NOISE).value_and_grad(x, 0)[1].any()


def test_an_exact_view_is_the_deployed_purifier() -> None:
    assert Exact().view(DDPM) is DDPM and Strided(5) == Strided(5)
    assert Constant(5).measure is None
