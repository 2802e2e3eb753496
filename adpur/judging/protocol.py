"""`adpur-standard-v1`: what a number must be made of to be quoted under that name."""

from adpur.attacks.apgd import APGD
from adpur.attacks.square import Square
from adpur.attacks.worst import Suited, rand, standard
from adpur.defense.gradient import BPDA
from adpur.judging.trial import AttackBlock
from adpur.threat.ball import Norm
from adpur.threat.losses import DLR, Margin

NAME = "adpur-standard-v1"
EXACT, SQUARE, APPROXIMATE = "v1-exact", "v1-square", "v1-bpda"
"""Its blocks; the last one for rows that have a purifier."""
IMAGES, DRAWS = 512, 20


def blocks(eps: float, norm: Norm, classes: int) -> list[AttackBlock]:
    """The blocks of version 1, whose budgets are part of its name."""
    ratio = DLR() if classes > 3 else Margin()  # targeted DLR needs four classes
    exact = Suited(
        standard(eps, norm, ratio), rand(eps, norm, eot=10, steps=50, loss=ratio), eps, norm
    )
    square = Suited(Square(steps=5000), Square(steps=200, draws=10), eps, norm)
    bpda = APGD(eps=eps, norm=norm, steps=50, eot=10)
    return [
        AttackBlock(EXACT, exact), AttackBlock(SQUARE, square),
        AttackBlock(APPROXIMATE, bpda, BPDA()),
    ]  # fmt: skip


def missing(images: int, draws: int, trust: str) -> list[str]:
    """What keeps a run from being quoted; empty if nothing does.

    >>> missing(128, 20, "full")
    ['128 images of at least 512']
    """
    told = []
    if images < IMAGES:
        told.append(f"{images} images of at least {IMAGES}")
    if draws < DRAWS:
        told.append(f"{draws} draws of at least {DRAWS}")
    if trust != "full":
        told.append(f"trust report {trust}, not full")
    return told
