"""Where a gradient was lost."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from adpur.defense.defense import Defense
from adpur.defense.gradient import Remembered
from adpur.keyed.memory import Body, Memory, Recompute
from adpur.keyed.noise import Noise
from adpur.purify.base import Context, Levels, Purifier


@dataclass(frozen=True)
class Traced(Memory):
    """Recompute every step, and note what gradient arrives at its result."""

    arrived: list[str] = field(default_factory=list)

    def run(self, body: Body, *inputs: Tensor, kind: Hashable = None) -> Sequence[Tensor]:
        """The body's result, watched."""
        first, *rest = Recompute().run(body, *inputs)
        call = len(self.arrived)
        self.arrived.append("missing")

        def note(grad: Tensor) -> None:
            self.arrived[call] = _kind(grad)

        if first.requires_grad:
            first.register_hook(note)  # type: ignore[no-untyped-call]
        return [first, *rest]

    def shared(self, workers: int) -> "Traced":
        """Itself."""
        return self


def blame(
    defense: Defense,
    view: Purifier,
    x: Tensor,
    noise: Noise,
    levels: Levels,
    loss: Callable[[Tensor], Tensor],
) -> str:
    """Run one row again with its gradient watched at every step; noise is keyed, so it recurs.

    Says whether the gradient is not finite or zero, and the last place in the backward pass where
    it still was not. Empty if the loss itself is flat at these logits.
    """
    view = view.inner if isinstance(view, Remembered) else view
    trace = Traced()
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().requires_grad_()
        context = Context(defense.networks, defense.rows, trace)
        image = view.purify(x, noise, levels, context).image
        copies, keys = (
            image.expand(defense.rows, -1, -1, -1),
            noise[torch.zeros(defense.rows).long()],
        )
        logits = defense.networks.classify(copies, keys)[:1]
        at_logits, at_image = torch.autograd.grad(
            loss(logits).sum(), (logits, image), retain_graph=True, allow_unused=True
        )
        (grad,) = torch.autograd.grad(
            image, x, torch.zeros_like(image) if at_image is None else at_image, allow_unused=True
        )
    what = _kind(grad)
    if what == "zero" and _kind(at_logits) == "zero":
        return ""  # saturated, as far as this precision sees
    if what == "good":
        return "is not usable: it is lost in the score norm that t(x) is computed from"
    if _kind(at_image) != "good":
        return f"is {_kind(at_image)} already at the purified image: look at the classifier"
    broken = [k for k, kind in enumerate(trace.arrived) if kind not in ("good", "missing")]
    lost, steps = max(broken, default=-1) + 2, len(trace.arrived)
    if lost > steps:
        return f"is {what}: it is lost between the purifier's {steps} steps and its result"
    return f"is {what}: it is lost in step {lost} of the purifier's {steps}"


def _kind(grad: Tensor | None) -> str:
    if grad is None or not grad.any():
        return "zero"
    return "good" if torch.isfinite(grad).all() else "not finite"
