"""Published purifiers by name, as annotated functions: each is a `class_path` with defaults.

Where a paper and its released code differ, two presets or an argument say so (docs/released.md).
What each row does at its exit (`clamp`), to x0_hat (`clip`), its variance and its grid is recorded
with every run.

Every row that walks a grid takes either a stride (`stride`, `dt`: the calls follow t(x)) or a
number of steps (`steps`: the calls are fixed, the stride follows t(x)); naming both is an error.
`edm` and `one_shot` have a fixed count anyway, ScoreOpt's `steps` are those of its optimisation.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from adpur.diffusion.grid import (
    Counted,
    Even,
    Grid,
    Inclusive,
    Karras,
    OneShot,
    Strided,
    Subsequence,
)
from adpur.diffusion.guidance import Guidance, ReleasedMSE, ReleasedSSIM
from adpur.diffusion.schedule import VE, DiscreteVP, LinearVP, NoiseSchedule
from adpur.diffusion.step import Ancestral, Corrected, EulerMaruyama, Heun, Step
from adpur.errors import ConfigError
from adpur.purify.base import Purifier
from adpur.purify.chain import Chain
from adpur.purify.diffusion import Diffusion
from adpur.purify.levels.level import Constant, Jittered, NoiseLevel
from adpur.purify.scoreopt import Diff, Objective, ScoreOpt


def ddpm_schedule() -> NoiseSchedule:
    """The linear betas of Ho et al. (2020); in YAML, `DiscreteVP` means checking 1,000 numbers."""
    return DiscreteVP()


def ddpm(
    t: float = 100,
    stride: int = 1,
    eta: float = 1.0,
    jitter: float = 0.0,
    corrector: float = 0.0,
    clamp: bool = False,
    schedule: NoiseSchedule | None = None,
    steps: int | None = None,
) -> Purifier:
    """DiffPure with the DDPM sampler (Nie et al. 2022; SSNI Table 4), posterior variance.

    Args:
        t: t*.
        stride: DDPM steps a network call.
        eta: 0 is DDIM.
        jitter: t* is uniform on t - jitter to t + jitter (DiffPure's `rand_t`).
        corrector: signal-to-noise ratio of an extra Langevin corrector, 0.16 in ADDT Table 10.
        clamp: clamp the result to [0, 1].
        schedule: whose steps; the network's own by default; `ddpm_schedule` for EDM or score_sde.
        steps: network calls, in place of `stride`.
    """
    step, grid = _corrected(Ancestral(eta=eta), corrector), _integer("ddpm", stride, steps)
    return Diffusion(_jittered(t, jitter), grid, step, clamp=clamp, schedule=schedule)


def ddim(
    t: float = 100,
    stride: int = 10,
    clamp: bool = False,
    schedule: NoiseSchedule | None = None,
    steps: int | None = None,
) -> Purifier:
    """DiffPure with the DDIM sampler (SSNI Table 4), `steps` of them in place of every `stride`."""
    grid = _integer("ddim", stride, steps, 10)
    return Diffusion(Constant(t), grid, Ancestral(eta=0.0), clamp=clamp, schedule=schedule)


def vp_sde(
    t: float = 0.1,
    dt: float = 1e-3,
    eta: float = 1.0,
    jitter: float = 0.0,
    corrector: float = 0.0,
    clamp: bool = False,
    steps: int | None = None,
) -> Purifier:
    """DiffPure as published: the reverse VP-SDE by Euler-Maruyama, to 1e-5 (Nie et al. 2022).

    t is in [0, 1] and continuous; networks of discrete schedules are asked at equal noise. `eta`
    0 is the probability-flow ODE. `steps` equal ones are taken in place of those of length `dt`.
    The released code diffuses with DDPM's discrete abar, which differs from this schedule's by
    7e-4 at t = 0.1 (.8970 and .8963): `vp_sde_released`.
    """
    if steps is not None and dt != 1e-3:
        raise ConfigError(f"vp_sde takes steps or dt, not both, got {steps} and {dt}")
    step = _corrected(EulerMaruyama(eta), corrector)
    grid = Even(dt, 1e-5) if steps is None else Counted(steps, 1e-5)
    return Diffusion(_jittered(t, jitter), grid, step, schedule=LinearVP(), clamp=clamp)


def vp_sde_released(
    t: float = 0.1,
    dt: float = 1e-3,
    eta: float = 1.0,
    clamp: bool = False,
    steps: int | None = None,
) -> Purifier:
    """DiffPure as released: `vp_sde`, but the noise is added by DDPM's discrete table.

    Images are diffused with abar at index t* - 1 of the table (.8970 at t* = 100), then walked back
    from the continuous t (.8963): 1e-3 from the paper's.
    """
    printed = vp_sde(t, dt, eta, clamp=clamp, steps=steps)
    assert isinstance(printed, Diffusion)
    return replace(printed, table=DiscreteVP())


def addt_ddpm(
    t: float = 100,
    stride: int = 20,
    schedule: NoiseSchedule | None = None,
    steps: int | None = None,
) -> Purifier:
    """ADDT's DDPM evaluation as released: index t included, fixed-large, x0 and result clamped.

    `steps`, in place of `stride`, is what ADDT counts as NFE; network calls are one more.
    """
    step = Ancestral(variance="fixed_large", clip=True)
    grid = _inclusive("addt_ddpm", stride, steps)
    return Diffusion(Constant(t), grid, step, clamp=True, schedule=schedule)


def addt_ddim(
    t: float = 100,
    stride: int = 20,
    schedule: NoiseSchedule | None = None,
    steps: int | None = None,
) -> Purifier:
    """ADDT's DDIM evaluation as released: x0 clamped, the network's own eps kept.

    `steps` as in `addt_ddpm`.
    """
    step = Ancestral(eta=0, clip=True, rederive=False)
    grid = _inclusive("addt_ddim", stride, steps)
    return Diffusion(Constant(t), grid, step, clamp=True, schedule=schedule)


def edm(
    sigma: float = 0.5,
    count: int = 50,
    churn: float = 0.0,
    s_min: float = 0.01,
    s_max: float = 0.46,
    s_noise: float = 1.007,
    rho: float = 7.0,
    sigma_min: float = 0.002,
    corrector: float = 0.0,
    clamp: bool = True,
) -> Purifier:
    """EDM's sampler as a purifier (ADDT Table 9): `churn` 0 is its ODE, 6 its SDE.

    `count` Heun steps are 2 count - 1 network calls: 99, where the paper counts 50.
    """
    if not churn >= 0:
        raise ConfigError(f"edm churn (S_churn) must be >= 0, got {churn}")
    gamma = min(churn / count, 2**0.5 - 1)
    step = _corrected(Heun(gamma, s_min, s_max, s_noise), corrector)
    grid = Karras(count, sigma_min, rho)
    return Diffusion(Constant(sigma), grid, step, schedule=VE(), clamp=clamp)


def revpure(
    t: float = 150,
    stride: int = 1,
    eta: float = 1.0,
    subsequence: int | None = None,
    scaled: bool = False,
    fixed_large: bool = False,
    schedule: NoiseSchedule | None = None,
    steps: int | None = None,
) -> Purifier:
    """RevPure: the reverse process alone, from x itself; eta 0 is deterministic.

    Args:
        t: t*.
        stride: DDPM steps a network call.
        eta: 1 is DDPM, 0 DDIM.
        subsequence: s*, this many nearly equal steps in place of `stride` (Fig. 2b).
        scaled: start from alpha_t x, not x.
        fixed_large: beta_t, which Eq. 3 prints and the DDPM checkpoints have, not the posterior's.
        schedule: whose steps; the network's own by default.
        steps: another name of `subsequence`, which it excludes.
    """
    if steps is not None and subsequence is not None:
        raise ConfigError(f"revpure takes steps or subsequence, got {steps} and {subsequence}")
    grid = _integer("revpure", stride, steps if subsequence is None else subsequence)
    step = Ancestral(eta=eta, variance="fixed_large" if fixed_large else "posterior")
    return Diffusion(Constant(t), grid, step, inject=False, scaled=scaled, schedule=schedule)


def one_shot(sigma: float = 0.5, clamp: bool = True) -> Purifier:
    """One denoising call: ScoreOpt's baseline, and the surrogate of its attacks."""
    return Diffusion(Constant(sigma), OneShot(), Ancestral(eta=0), schedule=VE(), clamp=clamp)


def gdmp(
    t: float = 36,
    rounds: int = 4,
    stride: int = 1,
    guidance: Guidance | None = None,
    clamp: bool = False,
    schedule: NoiseSchedule | None = None,
    steps: int | None = None,
    original: bool = True,
) -> Purifier:
    """GDMP (Wang et al. 2022): rounds of guided DDPM. 4 x 36, 2 x 50 (BPDA) or 1 x 45 (ImageNet).

    Args:
        t: t* of each round.
        rounds: how many.
        stride: DDPM steps a network call.
        guidance: None, MSE or SSIM.
        clamp: clamp what each round leaves to [0, 1].
        schedule: whose steps; the network's own by default.
        steps: network calls of a round, in place of `stride`.
        original: guide every round by the image that was given, as the paper's numbers were made;
            False guides each by its own input, the image that the last round left (.1 apart).
    """
    grid = _integer("gdmp", stride, steps)
    one = Diffusion(Constant(t), grid, guidance=guidance, clamp=clamp, schedule=schedule)
    return Chain([one] * rounds, original=original and guidance is not None)


def gdmp_released(
    t: float = 36,
    rounds: int = 4,
    guidance: Literal["mse", "ssim"] | None = "mse",
    scale: float | None = None,
    budget: float = 8.0,
    large: bool = True,
    batch: int = 100,
    schedule: NoiseSchedule | None = None,
) -> Purifier:
    """GDMP as released, by its CIFAR-10 settings, guided by the original input in every round.

    Beside `gdmp`, the image is noised one index later than the walk sets out; x0_hat is clamped,
    and what the last round leaves; with `large` variance the shift, too, has DDPM's beta_t; SSIM is
    that of the package `pytorch_ssim` (zeros beyond the edge, constants of range 1 on images in
    [-1, 1]); and the likeness is a mean over the batch, which divides every image's pull by its
    size.

    Args:
        t: t* of each round.
        rounds: how many.
        guidance: by which likeness.
        scale: by default 6e4 for MSE and 7e4 for SSIM, those of CIFAR-10.
        budget: the perturbation it expects, in grey levels.
        large: fixed-large (its CIFAR-10 network); False is fixed-small.
        batch: images of a batch, 100 in its configuration: the pull depends on this number, and on
            no batch here. 1 is an image alone.
        schedule: whose steps; the network's own by default.
    """
    pull: dict[str | None, Guidance | None] = {
        None: None,
        "mse": ReleasedMSE(6e4 if scale is None else scale, budget, batch, large),
        "ssim": ReleasedSSIM(7e4 if scale is None else scale, budget, batch, large),
    }
    step = Ancestral(variance="fixed_large" if large else "posterior", clip=True)
    one = Diffusion(
        Constant(t), Strided(1), step, guidance=pull[guidance], schedule=schedule, offset=1
    )
    return Chain([*[one] * (rounds - 1), replace(one, clamp=True)], original=guidance is not None)


def gns(
    ts: Sequence[float] = (30, 30, 30, 30, 50, 50, 125, 125),
    stride: int = 1,
    schedule: NoiseSchedule | None = None,
    steps: int | None = None,
) -> Purifier:
    """GNS, gradual noise scheduling (Lee & Kim 2023), with `Majority(10)`; CIFAR-10's rounds.

    ImageNet: 30 x 4, 50 x 2, 200 x 2; SVHN: 30 x 4, 50 x 2, 80 x 2. Rounds denoise fully, or in
    `steps` calls each in place of every `stride`-th.
    """
    grid = _integer("gns", stride, steps)
    return Chain([Diffusion(Constant(t), grid, schedule=schedule) for t in ts])


def gns_surrogate(
    ts: Sequence[float] = (30, 50, 125),
    counts: Sequence[int] = (1, 1, 5),
    schedule: NoiseSchedule | None = None,
) -> Purifier:
    """What GNS's own attack differentiates: rounds 30, 50, 125 in 1, 1, 5 steps.

    ImageNet ends in 200, SVHN in 80.
    """
    if len(ts) != len(counts):
        raise ConfigError(f"gns_surrogate needs as many counts as ts, got {len(counts)}, {len(ts)}")
    pairs = zip(ts, counts, strict=True)
    return Chain([Diffusion(Constant(t), Subsequence(n), schedule=schedule) for t, n in pairs])


def scoreopt_o(
    sigma: float = 0.5,
    width: float = 0.2,
    lr: float = 0.1,
    steps: int = 5,
    objective: Objective = Diff(),
    batch: int | None = None,
) -> Purifier:
    """ScoreOpt-O (Algorithm 1), Table 10's BPDA row: sigma on [0.4, 0.6], 5 steps of 0.1.

    Transfer: sigma 0.25, width 0.4, lr 0.01, steps 20. CIFAR-100: sigma 0.25, width 0.4, steps 3.
    `batch`: the loss is a mean over so many images, as released (see `ScoreOpt`); None is a sum.
    """
    return ScoreOpt(Constant(sigma), width, lr, steps, 0, objective, batch=batch)


def scoreopt_n(
    sigma: float = 0.25,
    width: float = 0.0,
    lr: float = 0.1,
    steps: int = 20,
    rounds: int = 1,
    objective: Objective = Diff(),
    as_released: bool = False,
    batch: int | None = None,
) -> Purifier:
    """ScoreOpt-N (Algorithm 2), Table 10's PGD+EOT row: sigma 0.25, 20 steps of 0.1.

    BPDA: sigma 0.5, steps 5. Transfer: sigma 0.25, steps 5. `as_released` pulls D(x_t) to
    x_t - sigma e in place of the round's x_i: another method under the same name. `batch`: the loss
    is a mean over so many images, as released (see `ScoreOpt`); None is a sum.
    """
    frozen = not as_released
    return ScoreOpt(Constant(sigma), width, lr, steps, rounds, objective, frozen, batch=batch)


def scoreopt_o_released(
    sigma: float = 0.5, spread: float = 0.1, lr: float = 0.1, steps: int = 5, batch: int = 120
) -> Purifier:
    """ScoreOpt-O as released: its loss is a mean over the batch, and sigma is +- 0.1 always.

    BPDA's batch is 8 images of 15 replicates; the transfer command has 128 (lr 0.01, steps 20).
    Its sigma is one draw a batch; here each image has its own.
    """
    return scoreopt_o(sigma, spread / sigma, lr, steps, batch=batch)


def scoreopt_n_released(
    sigma: float = 0.25, lr: float = 0.1, steps: int = 20, batch: int = 160
) -> Purifier:
    """ScoreOpt-N as released: one round, D(x_t) pulled to x_t - sigma e, a mean over the batch.

    PGD+EOT's batch is 8 images of 20 replicates; the transfer command has 128 (steps 5).
    """
    return scoreopt_n(sigma, 0.0, lr, steps, as_released=True, batch=batch)


def _integer(row: str, stride: int, steps: int | None, default: int = 1) -> Grid:
    """The grid of a row on DDPM's steps: a stride, or a number of steps."""
    _one_of(row, stride, steps, default)
    return Strided(stride) if steps is None else Subsequence(steps)


def _inclusive(row: str, stride: int, steps: int | None, default: int = 20) -> Grid:
    _one_of(row, stride, steps, default)
    return Inclusive(stride) if steps is None else Inclusive(count=steps)


def _one_of(row: str, stride: int, steps: int | None, default: int) -> None:
    if steps is not None and stride != default:
        raise ConfigError(
            f"expected steps or stride in {row}, got steps {steps} and stride {stride}; write one"
        )


def _jittered(t: float, jitter: float) -> NoiseLevel:
    return Jittered(Constant(t), jitter) if jitter != 0 else Constant(t)


def _corrected(step: Step, snr: float) -> Step:
    return Corrected(step, snr) if snr != 0 else step
