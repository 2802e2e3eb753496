"""What the denoiser is trained on: a weighted distance of x0_hat to the image."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from adpur.addt.case import Case
from adpur.types import expand


class DenoisingLoss(ABC):
    """A weight of ||x_0 - x0_hat||^2 at each time."""

    @abstractmethod
    def weight(self, case: Case) -> Tensor:
        """Fp64 `(B,)`."""

    def losses(self, case: Case, x0: Tensor) -> Tensor:
        """Each image's loss `(B,)`, mean over its values, of the estimate `x0`."""
        return (expand(self.weight(case), x0) * (case.x - x0).square()).flatten(1).mean(1)


@dataclass(frozen=True)
class EpsMSE(DenoisingLoss):
    """gamma_t^2: equal to ||eps_hat - eps'||^2 (DDPM's L_simple; ADDT Algorithm 1, line 14).

    Algorithm 1 and the released code have gamma inside the norm, Eq. 8 outside; this is the former.
    """

    def weight(self, case: Case) -> Tensor:
        """(alpha_t / sigma_t)^2."""
        return case.denoiser.schedule.snr(case.t)


@dataclass(frozen=True)
class EDMWeighted(DenoisingLoss):
    """(sigma^2 + sigma_data^2) / (sigma sigma_data)^2 (Karras et al. 2022, Table 1).

    Args:
        sigma_data: the network's own.
    """

    sigma_data: float = 0.5

    def weight(self, case: Case) -> Tensor:
        """In terms of sigma = sigma_t / alpha_t."""
        return case.denoiser.schedule.snr(case.t) + 1 / self.sigma_data**2
