"""Every attack there is, small and strong, and the problems the laws put to them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import torch
from problems import SHAPE, GaussianDenoiser, LinearClassifier, WavyDenoiser, images
from torch import Tensor

from adpur import (
    L2,
    PGD,
    SPSA,
    Attack,
    Constant,
    Defense,
    DiffAttack,
    DiffHammer,
    Diffusion,
    Flow,
    Identity,
    Knowledge,
    Linf,
    Margin,
    Networks,
    Noise,
    Norm,
    OneStep,
    Oracle,
    Purifier,
    RandomNoise,
    Reference,
    Reweighted,
    ScoreNorm,
    Sigmoid,
    Square,
    StAdv,
    StickyPGD,
    Strided,
    Threat,
    fgsm,
)
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.threat.flow import warped

NORMS: list[Norm] = [Linf(), L2()]
Make = Callable[[float, Threat], Attack]


@dataclass(frozen=True)
class Case:
    """An attack in two sizes.

    `norms` are the threats it knows. `quick` is for the laws; `strong` must reach the share `reaches` of the closed-form worst case,
    of the mean over draws too. `gates`: it leaves alone what it takes for broken, as published. `walks`: it needs a reverse
    process, which `Identity` has not.
    """

    name: str
    quick: Make
    strong: Make
    reaches: float
    gates: bool = False
    walks: bool = False
    norms: tuple[Threat, ...] = tuple(NORMS)


CASES = [
    Case(
        "pgd",
        lambda eps, norm: PGD(eps, steps=2, norm=norm, eot=2),
        lambda eps, norm: PGD(eps, steps=20, norm=norm, eot=2, step_size=0.02),
        0.9999,
    ),
    Case(
        "pgd-best",
        lambda eps, norm: PGD(
            eps, steps=2, norm=norm, eot=2, candidates=2, restarts=2, select=2, loss=Margin()
        ),
        lambda eps, norm: PGD(
            eps, steps=20, norm=norm, eot=2, step_size=0.02, candidates=4, loss=Margin()
        ),
        0.9999,
    ),
    Case(
        "pgd-mean-logits",
        lambda eps, norm: PGD(eps, steps=2, norm=norm, eot=2, mean_logits=True),
        lambda eps, norm: PGD(eps, steps=20, norm=norm, eot=2, step_size=0.02, mean_logits=True),
        0.9999,
    ),
    Case("fgsm", lambda eps, norm: fgsm(eps, norm, 2), lambda eps, norm: fgsm(eps, norm), 0.9999),
    Case(
        "random",
        lambda eps, norm: RandomNoise(eps, norm, points=3, draws=2),
        lambda eps, norm: RandomNoise(eps, norm, points=30, draws=2),
        0.35,
    ),
    Case(
        "square",
        lambda eps, norm: Square(eps, norm, steps=4, draws=2),
        lambda eps, norm: Square(eps, norm, steps=80, draws=1, p_init=0.05),
        0.45,  # Linf 0.9; in L2 a bump is 3 pixels wide at least, and the image has 4
    ),
    Case(
        "spsa",
        lambda eps, norm: SPSA(eps, steps=2, norm=norm, samples=3, draws=2),
        lambda eps, norm: SPSA(eps, step_size=0.02, steps=12, norm=norm, samples=8),
        0.8,
    ),
    Case(
        "sticky",
        lambda eps, norm: StickyPGD(eps, steps=2, norm=norm, eot=2, replicates=3),
        lambda eps, norm: StickyPGD(eps, steps=20, norm=norm, eot=2, replicates=3),
        0.9999,
        gates=True,
    ),
    Case(
        "one-step",
        lambda eps, norm: OneStep(eps, norm, eot=2),
        lambda eps, norm: OneStep(eps, norm, eot=2),
        0.9999,
        norms=(Flow(), *NORMS),
    ),
    Case(
        "stadv",
        lambda eps, norm: StAdv(eps, norm, steps=2, eot=2, candidates=2, select=2, restarts=2),
        lambda eps, norm: StAdv(eps, norm, steps=30, tau=0.0, eot=2, select=2),
        0.999,
        norms=(Flow(),),
    ),
    Case(
        "diffattack",
        lambda eps, norm: DiffAttack(PGD(steps=2, eot=2), 0.3, eps, norm),
        lambda eps, norm: DiffAttack(
            PGD(steps=20, eot=2, step_size=0.02, loss=Margin()), 1e-4, eps, norm
        ),
        0.999,  # on two losses, one of them nearly gone
        walks=True,
    ),
    Case(
        "diffhammer",
        lambda eps, norm: DiffHammer(eps, 2, norm, eot=3, restarts=2, select=2),
        lambda eps, norm: DiffHammer(eps, 60, norm, eot=4, select=2),
        0.9,  # 1 in Linf; in L2, as APGD, it halves too early on noisy losses
    ),
    Case(
        "diffhammer-whole",
        lambda eps, norm: DiffHammer(eps, 2, norm, eot=3, ahead=None, graft=False, select=2),
        lambda eps, norm: DiffHammer(eps, 60, norm, eot=4, ahead=None, graft=False, select=2),
        0.9,
    ),
]
KINDS = [(case, norm) for case in CASES for norm in case.norms]
"""Every attack in every threat it knows."""

REFERENCE = Reference(
    30, 8, 20, 45, count=9, horizon=20, levels=2, scorer=fingerprint(WavyDenoiser())
)
DIFFPURE = Diffusion(Constant(60), Strided(60))
SSNI = Diffusion(Reweighted(60, Sigmoid(5.0), REFERENCE, ScoreNorm(20, 2)), Strided(30))


def oracle(
    purifier: Purifier = DIFFPURE,
    y: Tensor | None = None,
    noise: Noise | None = None,
    knowledge: Knowledge = Knowledge(),
    networks: Networks | None = None,
) -> Oracle:
    """Of six images, labelled by the bare classifier."""
    nets = networks or Networks(LinearClassifier(), WavyDenoiser())
    defense = Defense(purifier, nets, 8)
    y = nets.classifier(images(6)).argmax(1) if y is None else y
    noise = noise if noise is not None else Noise(torch.arange(6), seed=1)
    random = not isinstance(purifier, Identity)
    return Oracle(defense, purifier, y, noise, knowledge, random=random)


def furthest(x: Tensor, grad: Tensor, eps: float) -> Tensor:
    """The most that <grad, x' - x> gains `(B,)` over flows within eps, x' - x bilinear in every cell
    and so greatest at a corner of one, or where the bound cuts it.
    """
    reach = eps * x.shape[-1] / 2
    stops = [-reach, *range(math.ceil(-reach), math.floor(reach) + 1), reach]
    moves = torch.tensor(list(product(stops, stops)), dtype=x.dtype)
    flows = (move.view(1, 2, 1, 1).expand(len(x), -1, *x.shape[2:]) for move in moves)
    gains = [(grad * (warped(x, flow) - x)).sum(1) for flow in flows]
    return torch.stack(gains).amax(0).flatten(1).sum(1)


@dataclass(frozen=True)
class Affine:
    """Two classes, a margin affine in x, images far from the boundary and from the range's border:
    the worst case of the mean margin is eps times the dual norm of its gradient.
    """

    oracle: Oracle
    x: Tensor
    grad: Tensor

    def worst(self, eps: float, norm: Threat) -> Tensor:
        if norm == Flow():
            return furthest(self.x, self.grad, eps)
        order = 1 if norm == Linf() else 2
        return eps * self.grad.flatten(1).norm(p=order, dim=1)

    def margin(self, x: Tensor) -> Tensor:
        """Mean over evaluation draws, which share keys between the two images compared."""
        keys = Knowledge().evaluate(self.oracle.noise, 4)
        with torch.no_grad():
            logits = self.oracle.defense(x.repeat(4, 1, 1, 1), keys).logits
        return Margin().loss(logits, self.oracle.y.repeat(4)).view(4, -1).mean(0)


def affine(purifier: Purifier) -> Affine:
    nets = Networks(LinearClassifier(2), GaussianDenoiser())
    nets.classifier.weight.data -= nets.classifier.weight.data.mean(1, keepdim=True)
    gap = torch.diff(nets.classifier.weight.detach(), dim=0).sign().view(1, *SHAPE)
    side = torch.tensor([1.0, -1.0] * 3, dtype=torch.float64).view(-1, 1, 1, 1)
    x = 0.5 + 0.3 * side * gap + 0.1 * (images(6) - 0.5)
    y = (side.flatten() > 0).long()
    base = oracle(purifier, y, networks=nets)
    grad = Oracle(base.defense, purifier, y, base.noise, loss=Margin()).value_and_grad(x, 0, 1)[1]
    return Affine(base, x, grad)
