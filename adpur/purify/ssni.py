"""SSNI over any row, by the names of the paper; and as its code has it."""

from dataclasses import replace

from adpur.diffusion.grid import Grid, Strided, Subsequence
from adpur.errors import ConfigError
from adpur.purify.base import Purifier, replaced
from adpur.purify.chain import Chain, Resized
from adpur.purify.diffusion import Diffusion
from adpur.purify.levels.curve import Curve, Linear, Sigmoid
from adpur.purify.levels.level import Constant, NoiseLevel, Reweighted, ScoreNorm
from adpur.purify.levels.reference import Reference, reference
from adpur.purify.presets import ddpm


def ssni(
    over: Purifier,
    weights: str,
    curve: Curve = Sigmoid(),
    horizon: int = 20,
    levels: int = 20,
    recompute: bool = False,
) -> Purifier:
    """SSNI over any row: each constant t* reweighted by one score norm of the input.

    Args:
        over: the row.
        weights: the diffusion folder beside which `adpur calibrate` left its statistics.
        curve: Sigmoid (SSNI-N) or Linear (SSNI-L).
        horizon: T' of EPS.
        levels: of EPS; 1 is the single score norm (SSNI Table 7).
        recompute: measure again for each round of a Chain.
    """
    measured, norm = reference(weights, horizon, levels), ScoreNorm(horizon, levels)

    def reweighted(level: NoiseLevel) -> NoiseLevel:
        if not isinstance(level, Constant):
            raise ConfigError(f"ssni reweights a constant t*, got {level}")
        return Reweighted(level.t, curve, measured, norm)

    purifier = replaced(over, NoiseLevel, reweighted)
    if recompute:
        if not isinstance(purifier, Chain):
            raise ConfigError("ssni recompute belongs to a purifier of several rounds")
        return replace(purifier, recompute=True)
    return purifier


def ssni_n(
    weights: str,
    t: float = 100,
    stride: int = 1,
    tau: float = 20.0,
    bias: float = 0.0,
    relative: bool = False,
    horizon: int = 20,
    levels: int = 20,
    clamp: bool = False,
    steps: int | None = None,
) -> Purifier:
    """SSNI-N over DiffPure: a sigmoid of the score norm, calibrated beside `weights`.

    By default a call is `stride` DDPM steps and calls fall with t(x); with `steps` every image
    costs that many, as in the released code (`ssni_released`).
    """
    over = ddpm(t, stride, clamp=clamp, steps=steps)
    return ssni(over, weights, Sigmoid(tau, bias, relative), horizon, levels)


def ssni_l(
    weights: str,
    t: float = 100,
    stride: int = 1,
    bias: float = 0.0,
    horizon: int = 20,
    levels: int = 20,
    clamp: bool = False,
    steps: int | None = None,
) -> Purifier:
    """SSNI-L over DiffPure: linear in the score norm, calibrated beside `weights`; see `ssni_n`."""
    over = ddpm(t, stride, clamp=clamp, steps=steps)
    return ssni(over, weights, Linear(bias), horizon, levels)


def ssni_released(
    over: Purifier,
    weights: str,
    curve: Curve = Sigmoid(bias=5),
    horizon: int = 20,
    single: bool = False,
    twice: bool = True,
) -> Purifier:
    """SSNI over DiffPure, GDMP or GNS as its code has it.

    Beside `ssni`: t* is one less (99 for 100), b is 5, and t(x) is 1 at least. The number of steps
    is fixed, not their length: a row that names its `steps` keeps that number for every t(x) (20 in
    the attacks), one of stride 1 takes t* of them, and b more under a Sigmoid (105 in evaluation),
    its times rounded up. The score norm's times are the VP-SDE's. The code spends all these calls
    even where t(x) is below their number, so that its SSNI saves no time; a call that repeats a
    time changes nothing and is not made here, so that measured calls fall with t(x) there.

    Args:
        over: the row, on DDPM's steps: `ddpm`, `gdmp` or `gns`, `Resized` or not.
        weights: the diffusion folder, calibrated with `adpur calibrate WEIGHTS --continuous`.
        curve: Sigmoid (SSNI-N) or Linear (SSNI-L), each with its b, whole. `Linear(5, batch=True)`
            takes the batch into its extremes, as released, and depends on it.
        horizon: T' of EPS, 20 for CIFAR-10 and 50 for ImageNet.
        single: the norm of one score, at T', of the image itself, to which no noise is added
            (Table 7). Calibrated with `--levels 1 --continuous --unnoised`.
        twice: with Linear, the walk starts b above the noise that was added, so that the network is
            told of more than there is: b stands in its times once more. False is what its BPDA
            attacks.
    """
    if not isinstance(curve, Sigmoid | Linear) or curve.bias != int(curve.bias):
        raise ConfigError(f"ssni_released takes a Sigmoid or Linear with a whole b, got {curve}")
    levels = 1 if single else horizon
    norm = ScoreNorm(horizon, levels, continuous=True, noised=not single)
    measured = reference(weights, horizon, levels, continuous=True, noised=not single)
    return released(over, curve, norm, measured, twice)


def released(
    over: Purifier, curve: Sigmoid | Linear, norm: ScoreNorm, measured: Reference, twice: bool
) -> Purifier:
    """`ssni_released` with its statistics given."""
    if isinstance(over, Chain):
        rounds = [released(r, curve, norm, measured, twice) for r in over.rounds]
        return replace(over, rounds=rounds)
    if isinstance(over, Resized):
        return replace(over, inner=released(over.inner, curve, norm, measured, twice))
    if not (isinstance(over, Diffusion) and isinstance(over.level, Constant) and over.inject):
        raise ConfigError(f"ssni_released reweights ddpm, gdmp or gns, got {over}")
    b, linear = int(curve.bias), isinstance(curve, Linear)
    lift = b if linear and twice else 0
    level = Reweighted(over.level.t - 1, curve, measured, norm, least=1)
    grid = Subsequence(_count(over.grid, int(over.level.t), 0 if linear else b), True, lift)
    return replace(over, level=level, grid=grid, offset=-float(lift))


def _count(grid: Grid, t: int, more: int) -> int:
    """How many steps a round takes: those it names, or all of t* and b more."""
    if isinstance(grid, Subsequence):
        return grid.count
    if grid == Strided(1):
        return t + more
    raise ConfigError(
        f"the code of SSNI fixes the number of steps, got {grid}; write steps: in the row"
    )
