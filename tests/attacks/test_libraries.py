"""Our attacks are not weaker than other libraries' with equal budgets, on deterministic networks.

One seed each; the paired interval is over images. `make oracle` prints the table.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from problems import LinearClassifier
from torch import Tensor, nn

from adpur import (
    APGD,
    DLR,
    FAB,
    L2,
    PGD,
    Attack,
    Defense,
    Exact,
    Identity,
    Linf,
    Networks,
    Noise,
    Norm,
    Oracle,
    pretrained,
)
from adpur.judging.statistics import paired_difference
from adpur.lit.data.digits import Digits

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("default"),  # theirs
]

Attacker = Callable[[nn.Module, Tensor, Tensor, Norm, float], Tensor]
SEEDS = {"device": "cpu", "seed": 0}


@dataclass(frozen=True)
class Problem:
    net: nn.Module
    x: Tensor
    y: Tensor


def digits() -> Problem:
    x, y, _ = Digits().split("test")[:]  # type: ignore[misc]
    return Problem(pretrained("digits/classifier").classifier, x[:128], y[:128])


def linear() -> Problem:
    gen = torch.Generator().manual_seed(2)
    net, x = LinearClassifier(10).float(), torch.rand(200, 1, 4, 4, generator=gen)
    return Problem(net, x, net(x).argmax(1))


def pyautoattack(kind: str) -> Attacker:
    autopgd = pytest.importorskip("pyautoattack.autopgd_base")
    fab = pytest.importorskip("pyautoattack.fab_pt")
    makers = {
        "ce": lambda *a, **k: autopgd.APGDAttack(*a, loss="ce", **k),
        "dlr": lambda *a, **k: autopgd.APGDAttack(*a, loss="dlr", **k),
        "targeted": autopgd.APGDAttack_targeted,
        "fab": lambda *a, **k: fab.FABAttack_PT(*a, targeted=True, **k),
    }

    def attack(net: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
        made = makers[kind](net, n_iter=100, norm=type(norm).__name__, eps=eps, **SEEDS)
        return made.perturb(x, y)

    return attack


def foolbox_pgd(net: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
    foolbox = pytest.importorskip("foolbox")
    torch.manual_seed(0)
    made = foolbox.attacks.LinfPGD if norm == Linf() else foolbox.attacks.L2PGD
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    return made(rel_stepsize=2.5 / 40, steps=40)(model, x, y, epsilons=eps)[1]


def ours(attack: Attack) -> Attacker:
    def run(net: nn.Module, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
        defense = Defense(Identity(), Networks(net), 128)
        view = Exact().view(defense.purifier)
        fields = {f: getattr(attack, f) for f in attack.__dataclass_fields__}  # type: ignore[attr-defined]
        own = type(attack)(**fields | {"eps": eps, "norm": norm})
        return own.run(Oracle(defense, view, y, Noise(torch.arange(len(x))), random=False), x)

    return run


PAIRS: dict[str, tuple[Attacker, Attacker]] = {
    "foolbox PGD-40": (ours(PGD(steps=40)), foolbox_pgd),
}
for _name, _attack in {
    "ce": APGD(),
    "dlr": APGD(loss=DLR()),
    "targeted": APGD(loss=DLR(), targets=9),
    "fab": FAB(),
}.items():
    PAIRS[f"pyautoattack {_name}"] = (ours(_attack), lambda *a, n=_name: pyautoattack(n)(*a))
CASES = [
    (digits, Linf(), 0.1),
    (digits, Linf(), 0.15),
    (digits, L2(), 0.5),
    (linear, Linf(), 0.05),
    (linear, L2(), 0.15),
]


@pytest.fixture(scope="module", autouse=True)
def heading() -> None:
    print("\nnetwork  norm   eps   attack                 ours  theirs  difference [95 %]")


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(
    ("problem", "norm", "eps"), CASES, ids=lambda v: getattr(v, "__name__", repr(v))
)
def test_not_weaker(problem: Callable[[], Problem], norm: Norm, eps: float, name: str) -> None:
    given = problem()
    right = []
    for attacker in PAIRS[name]:
        found = attacker(given.net, given.x, given.y, norm, eps).detach()
        found = norm.project(found, given.x, eps)
        assert norm.size(found - given.x).max() <= eps + 1e-5
        right.append((given.net(found).argmax(1) == given.y).double()[:, None].numpy())
    difference = paired_difference(*right)
    print(
        f"{problem.__name__:8} {norm!r:6} {eps:4}  {name:22} {right[0].mean():5.3f}  "
        f"{right[1].mean():5.3f}  {difference}"
    )
    assert difference.low <= 0, "ours is weaker beyond the interval"
