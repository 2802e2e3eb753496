"""An attacker's gradient beside the exact one."""

from dataclasses import replace

from torch import Tensor

from adpur.threat.oracle import Oracle


def gradient_cosine(oracle: Oracle, x: Tensor, eot: int) -> Tensor:
    """Cosine `(B,)` of an oracle's mean gradient to the deployed purifier's, on the same keys.

    What a surrogate, a substitute or BPDA is worth; NaN where either is zero.
    """
    return cosine(*both_gradients(oracle, x, eot))


def both_gradients(oracle: Oracle, x: Tensor, eot: int) -> tuple[Tensor, Tensor]:
    """Mean gradients of an oracle's view and of the deployed purifier, on the same keys."""
    own = replace(oracle, trace=None)
    exact = replace(own, view=oracle.defense.purifier)
    one, other = (o.value_and_grad(x, 0, eot)[1] for o in (own, exact))
    return one, other


def cosine(one: Tensor, other: Tensor) -> Tensor:
    """Cosine of each row `(B,)`."""
    one, other = one.flatten(1), other.flatten(1)
    return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))
