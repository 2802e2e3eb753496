"""Published purifiers by name, as annotated functions: each is a `class_path` with defaults."""

from adpur.grid import Strided
from adpur.level import Constant, Curve, Linear, Reweighted, ScoreNorm, Sigmoid, reference
from adpur.purify.base import Purifier
from adpur.purify.diffusion import Diffusion
from adpur.step import Ancestral


def ddpm(t: float = 100, stride: int = 1, clamp: bool = False) -> Purifier:
    """DiffPure with the DDPM sampler (Nie et al. 2022; SSNI Table 4)."""
    return Diffusion(Constant(t), Strided(stride), Ancestral(), clamp=clamp)


def ddim(t: float = 100, stride: int = 10, clamp: bool = False) -> Purifier:
    """DiffPure with the DDIM sampler (SSNI Table 4)."""
    return Diffusion(Constant(t), Strided(stride), Ancestral(eta=0), clamp=clamp)


def revpure(t: float = 150, stride: int = 1, eta: float = 1.0) -> Purifier:
    """RevPure: the reverse process alone, from x itself; eta 0 is deterministic."""
    return Diffusion(Constant(t), Strided(stride), Ancestral(eta=eta), inject=False)


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
    return _ssni(weights, t, stride, Sigmoid(tau, bias, relative), horizon, levels, clamp)


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
    return _ssni(weights, t, stride, Linear(bias), horizon, levels, clamp)


def _ssni(
    weights: str, t: float, stride: int, curve: Curve, horizon: int, levels: int, clamp: bool
) -> Purifier:
    measured = reference(weights, horizon, levels)
    level = Reweighted(t, curve, measured, ScoreNorm(horizon, levels))
    return Diffusion(level, Strided(stride), Ancestral(), clamp=clamp)
