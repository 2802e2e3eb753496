"""Published purifiers by name, as annotated functions: each is a `class_path` with defaults.

Where a paper and its released code differ, two presets or an argument say so. What each row does
at its exit (`clamp`), to x0_hat (`clip`), its variance and its grid is recorded with every run.
"""

from collections.abc import Sequence

from adpur.diffusion.grid import Even, Grid, Inclusive, Karras, OneShot, Strided, Subsequence
from adpur.diffusion.guidance import Guidance
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
    """
    step, grid = _corrected(Ancestral(eta=eta), corrector), Strided(stride)
    return Diffusion(_jittered(t, jitter), grid, step, clamp=clamp, schedule=schedule)


def ddim(
    t: float = 100, stride: int = 10, clamp: bool = False, schedule: NoiseSchedule | None = None
) -> Purifier:
    """DiffPure with the DDIM sampler (SSNI Table 4)."""
    return ddpm(t, stride, 0.0, clamp=clamp, schedule=schedule)


def vp_sde(
    t: float = 0.1,
    dt: float = 1e-3,
    eta: float = 1.0,
    jitter: float = 0.0,
    corrector: float = 0.0,
    clamp: bool = False,
) -> Purifier:
    """DiffPure as published: the reverse VP-SDE by Euler-Maruyama, to 1e-5 (Nie et al. 2022).

    t is in [0, 1] and continuous; networks of discrete schedules are asked at equal noise. `eta`
    0 is the probability-flow ODE. The released code diffuses with DDPM's discrete abar, which
    differs from this schedule's by 7e-4 at t = 0.1 (.8970 and .8963).
    """
    step = _corrected(EulerMaruyama(eta), corrector)
    grid = Even(dt, 1e-5)
    return Diffusion(_jittered(t, jitter), grid, step, schedule=LinearVP(), clamp=clamp)


def addt_ddpm(t: float = 100, stride: int = 20, schedule: NoiseSchedule | None = None) -> Purifier:
    """ADDT's DDPM evaluation as released: index t included, fixed-large, x0 and result clamped."""
    step = Ancestral(variance="fixed_large", clip=True)
    return Diffusion(Constant(t), Inclusive(stride), step, clamp=True, schedule=schedule)


def addt_ddim(t: float = 100, stride: int = 20, schedule: NoiseSchedule | None = None) -> Purifier:
    """ADDT's DDIM evaluation as released: x0 clamped, the network's own eps kept."""
    step = Ancestral(eta=0, clip=True, rederive=False)
    return Diffusion(Constant(t), Inclusive(stride), step, clamp=True, schedule=schedule)


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
) -> Purifier:
    """RevPure: the reverse process alone, from x itself; eta 0 is deterministic.

    Args:
        t: t*.
        stride: DDPM steps a network call.
        eta: 1 is DDPM, 0 DDIM.
        subsequence: s*, this many nearly equal steps in place of `stride` (Fig. 2b).
        scaled: start from alpha_t x, not x.
        fixed_large: the variance of the DDPM checkpoints, not the posterior's.
        schedule: whose steps; the network's own by default.
    """
    grid: Grid = Strided(stride) if subsequence is None else Subsequence(subsequence)
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
) -> Purifier:
    """GDMP (Wang et al. 2022): rounds of guided DDPM. 4 x 36, 2 x 50 (BPDA) or 1 x 45 (ImageNet).

    `guidance` is None, MSE or SSIM; each round is guided by its own input.
    """
    one = Diffusion(Constant(t), Strided(stride), guidance=guidance, clamp=clamp, schedule=schedule)
    return Chain([one] * rounds)


def gns(
    ts: Sequence[float] = (30, 30, 30, 30, 50, 50, 125, 125),
    stride: int = 1,
    schedule: NoiseSchedule | None = None,
) -> Purifier:
    """GNS, gradual noise scheduling (Lee & Kim 2023), with `Majority(10)`; CIFAR-10's rounds.

    ImageNet: 30 x 4, 50 x 2, 200 x 2; SVHN: 30 x 4, 50 x 2, 80 x 2. Rounds denoise fully.
    """
    return Chain([Diffusion(Constant(t), Strided(stride), schedule=schedule) for t in ts])


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
) -> Purifier:
    """ScoreOpt-O (Algorithm 1), Table 10's BPDA row: sigma on [0.4, 0.6], 5 steps of 0.1.

    Transfer: sigma 0.25, width 0.4, lr 0.01, steps 20. CIFAR-100: sigma 0.25, width 0.4, steps 3.
    """
    return ScoreOpt(Constant(sigma), width, lr, steps, 0, objective)


def scoreopt_n(
    sigma: float = 0.25,
    width: float = 0.0,
    lr: float = 0.1,
    steps: int = 20,
    rounds: int = 1,
    objective: Objective = Diff(),
    as_released: bool = False,
) -> Purifier:
    """ScoreOpt-N (Algorithm 2), Table 10's PGD+EOT row: sigma 0.25, 20 steps of 0.1.

    BPDA: sigma 0.5, steps 5. Transfer: sigma 0.25, steps 5. `as_released` pulls D(x_t) to
    x_t - sigma e in place of the round's x_i.
    """
    return ScoreOpt(Constant(sigma), width, lr, steps, rounds, objective, not as_released)


def _jittered(t: float, jitter: float) -> NoiseLevel:
    return Jittered(Constant(t), jitter) if jitter != 0 else Constant(t)


def _corrected(step: Step, snr: float) -> Step:
    return Corrected(step, snr) if snr != 0 else step
