"""Does a purifier bring images closer together, under one draw of its noise, and does it help?"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import spearmanr
from torch import Tensor

from adpur.defense.defense import Defense
from adpur.errors import ConfigError
from adpur.judging.judge import judge
from adpur.keyed.noise import Noise
from adpur.keyed.rows import mapped
from adpur.papers.analysis import Analysis, Answer, Cell, purifying
from adpur.papers.charts.compressions import Points, compressions
from adpur.papers.paths import draws, parts, perturbations, purified, signs_length
from adpur.papers.ssni.norms import banded, spread
from adpur.papers.subject import Subject
from adpur.purify.base import Context
from adpur.threat.ball import L2, Linf

LARGEST = 3072
"""Values of an image whose full Jacobian is computed: one backward pass each."""
QUARTILES = ("lower quartile", "median", "upper quartile")


@dataclass(frozen=True)
class Compression(Analysis):
    """RevPure's successor (arXiv 2505.22839): compression rate, and if it goes with robustness.

    The definition is ours; we have not seen the paper's: CR(x) = mean over d of
    ||P(x + d; eta) - P(x; eta)|| / ||d||, d uniform on the sphere of L2 radius eps sqrt(C H W)
    (a sign perturbation's length; eps itself where the block is in L2), not clipped to [0, 1], each
    d with a draw eta of its own, which x and x + d share, and t(x) that of x: a score norm sees any
    d, and its jump is no expansion. At small eps it is the mean of ||J u|| over unit u, J the
    Jacobian of P(.; eta) at x: at most the root mean square of J's singular values, and near it in
    many dimensions. Below 1, P compresses.

    Beside the rate of each image stands the share of the evaluation's draws that are right after
    the block's attack, and Spearman's correlation of the two over images (negative where images
    that are compressed more withstand more; NaN where no image differs from another).

    Costs `count` (1 + radii) purifications an image, C H W differentiated ones an image of
    `spectra`, and the attack.

    Args:
        eps: radii; by default an eighth, a quarter, half and all of the block's largest.
        count: directions d an image.
        spectra: of how many images, the first, the Jacobian's singular values are computed.
        attacked: judge the block's attack too.
        block: attack block of the config; by default the first of each row.
    """

    eps: tuple[float, ...] = ()
    count: int = 8
    spectra: int = 8
    attacked: bool = True
    block: str | None = None

    def __post_init__(self) -> None:
        if self.count < 1 or self.spectra < 0 or any(eps <= 0 for eps in self.eps):
            raise ConfigError(
                "expected count >= 1, spectra >= 0 and eps > 0, got "
                f"{self.count}, {self.spectra}, {list(self.eps)}"
            )

    def ask(self, subjects: Sequence[Subject]) -> Answer:
        """Medians and quartiles over images, then a point an image."""
        rows: list[tuple[Cell, ...]] = []
        over, spectra, points = [], [], []
        for subject in purifying(subjects):
            radii = self._radii(subject)
            rates = [rate(subject, self._length(subject, eps), self.count) for eps in radii]
            rows += _lines(subject, "compression rate", radii, rates)
            over.append(banded(subject.row, radii, [spread(r) for r in rates]))
            if self.spectra:
                values = list(self._values(subject).T)
                ranks = range(1, len(values) + 1)
                rows += _lines(subject, "singular value", ranks, values)
                spectra.append(banded(subject.row, ranks, [spread(v) for v in values]))
            if self.attacked:
                withstood = self._right(subject)
                rho = ranked(rates[-1], withstood)
                told = zip(_index(subject), withstood.tolist(), strict=True)
                rows += [(subject.row, "draws right, attacked", "", *pair) for pair in told]
                rows.append((subject.row, "rank correlation", radii[-1], "all", rho))
                points.append(Points(subject.row, rates[-1].tolist(), withstood.tolist(), rho))
        heading = ("row", "quantity", "at", "image", "value")
        return Answer(heading, rows, compressions(over, spectra, points))

    def _radii(self, subject: Subject) -> tuple[float, ...]:
        if self.eps:
            return self.eps
        return tuple(max(subject.block(self.block).radii) * k for k in (1 / 8, 1 / 4, 1 / 2, 1))

    def _length(self, subject: Subject, eps: float) -> float:
        """The L2 length of a perturbation of this radius."""
        norm = subject.block(self.block).attack.norm if subject.blocks else Linf()
        if not isinstance(norm, Linf | L2):
            raise ConfigError(f"expected a block in Linf or L2, got {norm}; choose it by --block")
        return eps if isinstance(norm, L2) else signs_length(subject.images.x, eps)

    def _values(self, subject: Subject) -> Tensor:
        """Singular values `(n, C H W)` under the first draw, largest first."""
        images = subject.images.first(self.spectra)
        found = []
        for k in range(len(images.x)):
            subject.tell(f"{subject.row}: Jacobian {k + 1} of {len(images.x)}")
            one = slice(k, k + 1)
            found.append(jacobian(subject.defense, images.x[one], draws(images.noise[one], 1)))
        return torch.stack([torch.linalg.svdvals(j) for j in found])

    def _right(self, subject: Subject) -> Tensor:
        """Share of evaluation draws of each attacked image that are right `(B,)`."""
        subject.tell(f"{subject.row}: attack")
        trial = subject.trial(self.block)
        verdict = judge(subject.defense, subject.images, subject.draws, trial)
        return verdict.correct.double().mean(1)


def rate(subject: Subject, length: float, count: int) -> Tensor:
    """CR fp64 `(B,)` of each image, by directions of this L2 length."""
    subject.tell(f"{subject.row}: compression at L2 length {length:.3g}")
    x, keys = subject.images.x.repeat(count, 1, 1, 1), draws(subject.images.noise, count)
    d, levels = perturbations(x, keys, length), subject.defense.levels(x, keys)
    still, moved = (purified(subject.defense, image, keys, levels) for image in (x, x + d))
    lengths = [v.double().flatten(1).norm(dim=1) for v in (moved - still, d)]
    return (lengths[0] / lengths[1]).view(count, -1).mean(0).cpu()


def jacobian(defense: Defense, x: Tensor, noise: Noise) -> Tensor:
    """Jacobian dP / dx fp64 `(C H W, C H W)` of one image, t(x) a constant."""
    size = x[0].numel()
    if size > LARGEST:
        raise ConfigError(
            f"expected images of at most {LARGEST} values for their full Jacobian, got {size}; "
            "--spectra=0 leaves it out"
        )
    context, keys = Context(defense.networks, defense.rows), noise.fold()
    levels = defense.levels(x, keys)

    def work(part: Tensor) -> list[Tensor]:
        zeros = torch.zeros_like(part)
        copies = x[zeros].detach().requires_grad_()
        out = defense.purifier.purify(copies, keys[zeros], levels.at(zeros), context).image
        value = out.flatten(1).gather(1, part[:, None].to(out.device)).sum()
        return [torch.autograd.grad(value, copies)[0].flatten(1)]

    with torch.enable_grad():
        return mapped(work, parts(size, defense.rows), defense.threads)[0].double().cpu()


def ranked(first: Tensor, second: Tensor) -> float:
    """Spearman's correlation; NaN where either does not vary."""
    if bool((first == first[0]).all() | (second == second[0]).all()):
        return math.nan
    return float(spearmanr(first.numpy(), second.numpy()).statistic)


def _lines(
    subject: Subject, quantity: str, places: Sequence[float], found: Sequence[Tensor]
) -> Iterator[tuple[Cell, ...]]:
    """At each place, the quartiles of the images' values and each of them."""
    for at, values in zip(places, found, strict=True):
        told: list[tuple[Cell, float]] = [*zip(QUARTILES, spread(values), strict=True)]
        told += zip(_index(subject), values.tolist(), strict=False)
        yield from ((subject.row, quantity, at, *pair) for pair in told)


def _index(subject: Subject) -> list[int]:
    index: list[int] = subject.images.noise.index.tolist()
    return index
