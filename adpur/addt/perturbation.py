"""How the noise of a training step departs from a Gaussian."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.addt.case import Case
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise
from adpur.keyed.rows import chunks
from adpur.types import expand


@dataclass(frozen=True, eq=False)
class Mixture:
    """eps' = keep eps + add delta, for any fresh eps.

    Args:
        keep, add: fp64 `(B,)`.
        delta: what the search found, `(B, C, H, W)`, in units of noise.
        found: the accumulated gradient delta was made from; delta itself where there is none.
        losses: the guide's loss at each iteration of the search, `(iterations, B)`.
    """

    keep: Tensor
    add: Tensor
    delta: Tensor
    found: Tensor
    losses: Tensor

    def __call__(self, eps: Tensor) -> Tensor:
        """The noise to be mixed into the images and to be found there."""
        return mixed(eps, self.keep, self.delta, self.add)


def searched(perturbation: "Perturbation", case: Case, noise: Noise, rows: int | None) -> Mixture:
    """The mixture of a batch, searched with exactly `rows` images a network call.

    The last bits of a convolution depend on the number of images in the call, and a rank-based
    mapping turns a last bit into another pixel. With fixed rows the result for an image does not
    depend on the batch it came in, and so not on the number of processes. None searches the whole
    batch at once.
    """
    if rows is None or rows == len(case.x):
        return perturbation.search(case, noise)
    parts = []
    for chunk, real in chunks(len(case.x), rows):
        found = perturbation.search(case.rows(chunk.to(case.x.device)), noise[chunk])
        parts.append([v[:real] for v in (found.keep, found.add, found.delta, found.found)])
        parts[-1].append(found.losses[:, :real])
    keep, add, delta, total, losses = zip(*parts, strict=True)
    joined = [torch.cat(v) for v in (keep, add, delta, total)]
    return Mixture(joined[0], joined[1], joined[2], joined[3], torch.cat(losses, dim=1))


def mixed(eps: Tensor, keep: Tensor, delta: Tensor, add: Tensor) -> Tensor:
    """Keep eps + add delta (ADDT Eq. 6)."""
    return expand(keep, eps) * eps + expand(add, eps) * delta


class Perturbation(ABC):
    """A search for the noise that is hardest for a training batch."""

    @abstractmethod
    def search(self, case: Case, noise: Noise) -> Mixture:
        """The mixture for a batch, with keyed noise; leaves no gradient on any parameter."""


@dataclass(frozen=True)
class Clean(Perturbation):
    """None: ordinary diffusion training (the clean fine-tune of ADDT Table 8)."""

    def search(self, case: Case, noise: Noise) -> Mixture:
        """Eps' = eps."""
        nothing = torch.zeros_like(case.x)
        one = torch.ones(len(case.x), dtype=torch.float64)
        return Mixture(one, torch.zeros_like(one), nothing, nothing, nothing.new_empty(0, len(one)))


@dataclass(frozen=True)
class Weight:
    """lambda_t = clip(gamma_t unit, low, high), gamma_t = alpha_t / sigma_t (ADDT Eq. 7).

    The papers' values serve attacks of Linf 8/255; scale `unit` and `high` with eps.
    """

    unit: float = 0.03
    low: float = 0.0
    high: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ConfigError(f"lambda: expected 0 <= low <= high, got {self.low} and {self.high}")

    def __call__(self, ratio: Tensor) -> Tensor:
        """lambda_t, fp64 `(B,)`, of gamma_t `(B,)`."""
        return (self.unit * ratio).clamp(self.low, self.high)
