"""Every step and every purifier there is, small enough for laws."""

import dataclasses

import pytest
import torch
from problems import WavyDenoiser
from torch import Tensor

from adpur import (
    MSE,
    SR,
    SSIM,
    Ancestral,
    Anchored,
    Constant,
    Corrected,
    Curve,
    Diffusion,
    Identity,
    Linear,
    Noise,
    Purifier,
    Reference,
    Reweighted,
    ScoreNorm,
    Sigmoid,
    Step,
    Strided,
    addt_ddim,
    addt_ddpm,
    ddpm,
    edm,
    gdmp,
    gdmp_released,
    gns,
    gns_surrogate,
    one_shot,
    revpure,
    scoreopt_n,
    scoreopt_n_released,
    scoreopt_o,
    scoreopt_o_released,
    vp_sde,
    vp_sde_released,
)
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.purify.base import replaced
from adpur.purify.levels.level import NoiseLevel
from adpur.purify.ssni import released

MADE_WITH = fingerprint(WavyDenoiser())
REFERENCE = Reference(30, 8, 20, 45, count=9, horizon=20, levels=5, scorer=MADE_WITH)
NORM = ScoreNorm(20, 5)
SDE = ScoreNorm(20, 5, continuous=True)
SDE_REFERENCE = dataclasses.replace(REFERENCE, continuous=True)
STEPS: list[Step] = [
    Ancestral(),
    Ancestral(variance="fixed_large"),
    Ancestral(eta=0.5),
    Ancestral(eta=0),
    Ancestral(clip=True),
    Ancestral(eta=0, clip=True, rederive=False),
    Corrected(Ancestral()),
]


def reweighted(over: Purifier, curve: Curve = Sigmoid(5.0)) -> Purifier:
    """SSNI over a row, with the toy's own reference."""
    return replaced(
        over, NoiseLevel, lambda level: Reweighted(level.configured, curve, REFERENCE, NORM)
    )


SMALL = SSIM(2e3, width=0.3)  # a window that fits 4 x 4 images
ROWS: dict[str, Purifier] = {
    "identity": Identity(),
    **{f"diffusion {step}": Diffusion(Constant(100), Strided(20), step) for step in STEPS},
    "ddpm corrected": ddpm(60, 20, corrector=0.16),
    "ddpm jittered": ddpm(60, 20, jitter=30),
    "ddpm clamped": ddpm(100, 20, clamp=True),
    "addt_ddpm": addt_ddpm(60, 20),
    "addt_ddim": addt_ddim(60, 20),
    "vp_sde": vp_sde(0.1, 0.03),
    "ddpm, 3 steps": ddpm(100, steps=3),
    "addt_ddpm, 3 steps": addt_ddpm(100, steps=3),
    "vp_sde, 3 steps": vp_sde(0.1, steps=3),
    "vp_sde as released": vp_sde_released(0.1, steps=3),
    "vp_ode": vp_sde(0.1, 0.03, eta=0),
    "vp_sde corrected, jittered": vp_sde(0.1, 0.04, corrector=0.16, jitter=0.03),
    "edm ode": edm(count=4),
    "edm sde": edm(count=4, churn=1.0, corrector=0.16),
    "revpure": revpure(100, 20),
    "revpure ddim subsequence": revpure(50, eta=0, subsequence=3),
    "revpure scaled, fixed_large": revpure(100, 20, scaled=True, fixed_large=True),
    "one_shot": one_shot(),
    "gdmp": gdmp(40, 2, 20),
    "gdmp mse": gdmp(40, 2, 20, MSE(2e3)),
    "gdmp mse, each round by its own input": gdmp(40, 2, 20, MSE(2e3), original=False),
    "gdmp ssim": gdmp(40, 2, 20, SMALL),
    "gdmp mse as released": gdmp_released(3, 2, "mse", 2e3, batch=2),
    "gdmp ssim as released": gdmp_released(3, 2, "ssim", 2e3, batch=2, large=False),
    "gns": gns((20, 40), 20),
    "gns surrogate": gns_surrogate((20, 40), (1, 3)),
    "scoreopt_o": scoreopt_o(steps=3),
    "scoreopt_o anchored": scoreopt_o(steps=2, objective=Anchored()),
    "scoreopt_o sr": scoreopt_o(steps=2, objective=SR()),
    "scoreopt_n": scoreopt_n(steps=3),
    "scoreopt_n two rounds, sr": scoreopt_n(width=0.2, steps=2, rounds=2, objective=SR()),
    "scoreopt_n as released": scoreopt_n(steps=2, as_released=True, objective=Anchored()),
    "scoreopt_o as released": scoreopt_o_released(steps=2),
    "scoreopt_n as released, mean": scoreopt_n_released(steps=2),
    "ssni_n": reweighted(ddpm(100, 20)),
    "ssni_n as released": released(ddpm(100, steps=4), Sigmoid(5.0, 5), SDE, SDE_REFERENCE, True),
    "ssni_l as released": released(ddpm(100, steps=4), Linear(5), SDE, SDE_REFERENCE, True),
    "ssni_n over gdmp as released": released(
        gdmp(40, 2, steps=2), Sigmoid(5.0, 5), SDE, SDE_REFERENCE, True
    ),
    "ssni over vp_sde, 3 steps": reweighted(vp_sde(0.1, steps=3)),
    "ssni_l": reweighted(ddpm(100, 20), Linear()),
    "ssni over vp_sde": reweighted(vp_sde(0.1, 0.03)),
    "ssni over edm": reweighted(edm(count=4)),
    "ssni over scoreopt": reweighted(scoreopt_o(steps=2)),
    "ssni over gns": reweighted(gns((20, 40), 20)),
    "ssni over gdmp, recomputed": dataclasses.replace(
        reweighted(gdmp(40, 2, 20, MSE(2e3))),  # type: ignore[type-var]
        recompute=True,
    ),
}
every_row = pytest.mark.parametrize("purifier", ROWS.values(), ids=ROWS)
DDPM = ddpm(100, 20)


@dataclasses.dataclass(frozen=True)
class Given(NoiseLevel):
    """A level chosen by the test for each dataset row."""

    t: tuple[float, ...]
    configured = 0.0
    measure = None

    @property
    def largest(self) -> float:
        return max(self.t)

    def check(self, nets: object) -> None:
        pass

    def level(self, norm: Tensor, noise: Noise) -> Tensor:
        return torch.tensor(self.t, dtype=torch.float64)[noise.index]
