"""SSNI over any row, by the names of the paper."""

from adpur.errors import ConfigError
from adpur.purify.base import Purifier, replaced
from adpur.purify.chain import Chain
from adpur.purify.levels.curve import Curve, Linear, Sigmoid
from adpur.purify.levels.level import Constant, NoiseLevel, Reweighted, ScoreNorm
from adpur.purify.levels.reference import reference
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
        return Chain(purifier.rounds, recompute=True)
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
) -> Purifier:
    """SSNI-N over DiffPure: a sigmoid of the score norm, calibrated beside `weights`."""
    over = ddpm(t, stride, clamp=clamp)
    return ssni(over, weights, Sigmoid(tau, bias, relative), horizon, levels)


def ssni_l(
    weights: str,
    t: float = 100,
    stride: int = 1,
    bias: float = 0.0,
    horizon: int = 20,
    levels: int = 20,
    clamp: bool = False,
) -> Purifier:
    """SSNI-L over DiffPure: linear in the score norm, calibrated beside `weights`."""
    return ssni(ddpm(t, stride, clamp=clamp), weights, Linear(bias), horizon, levels)
