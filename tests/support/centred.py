"""A Gaussian at the origin, on which DDIM only multiplies."""

import torch
from problems import GaussianDenoiser

from adpur import (
    Ancestral,
    Constant,
    Diffusion,
    Strided,
)
from adpur.diffusion.schedule import DiscreteVP

VAR = 0.25
CENTRED = GaussianDenoiser(0.0, VAR)
REVERSE = Diffusion(Constant(60), Strided(20), Ancestral(eta=0), inject=False)
"""Linear in the image at a Gaussian of mean 0: x_t is x~ times a number."""


def factors(times: list[int]) -> list[float]:
    """What x~ is multiplied by at each time of DDIM, and at its end."""
    schedule = DiscreteVP()
    t = torch.tensor(times, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t).tolist(), schedule.sigma(t).tolist()
    known = [1.0]
    for k in range(len(times) - 1):
        x0 = VAR * alpha[k] / (VAR * alpha[k] ** 2 + sigma[k] ** 2)
        step = alpha[k + 1] * x0 + sigma[k + 1] * (1 - alpha[k] * x0) / sigma[k]
        known.append(known[-1] * step)
    return known
