"""Muon, for convolution kernels."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from timm.optim.muon import get_lr_scale, zeropower_via_newtonschulz
from torch import Tensor, nn
from torch.optim import AdamW

from adpur.errors import ConfigError

COEFFICIENTS = [(3.4445, -4.7750, 2.0315)]
"""Of the quintic Newton-Schulz iteration (Jordan et al. 2024)."""
SCALES = ("match_rms_adamw", "original")


class Muon(AdamW):
    """Muon (Jordan et al. 2024) for convolution kernels, AdamW for all other parameters.

    A kernel of at least 8 filters is a matrix `(filters, rest)`. Its update is the orthogonal
    matrix nearest to the Nesterov momentum, by Newton-Schulz iteration (timm's, in fp32: timm's
    own optimizer and torch's compute it in bf16, which is slow on CPUs without bf16 arithmetic and
    rounds more coarsely), times `lr` and a factor of the kernel's shape.

    Args:
        lr: learning rate of the kernels; of the order of AdamW's, or ten times more.
        momentum: of the kernels.
        steps: of the Newton-Schulz iteration.
        scale: the factor: `match_rms_adamw` is 0.2 sqrt(max(filters, rest)), under which updates
            are as large as AdamW's (Liu et al. 2025); `original` is sqrt(max(1, filters / rest)).
        unit_norm: after every step give each kernel the norm sqrt(filters). For networks with a
            batch norm behind every convolution, whose output does not depend on that norm.
        rest_lr: learning rate of the other parameters.
        betas, weight_decay: of AdamW; kernels decay by lr x weight_decay too.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 5e-3,
        momentum: float = 0.95,
        steps: int = 5,
        scale: str = "match_rms_adamw",
        unit_norm: bool = False,
        rest_lr: float = 1.5e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if scale not in SCALES:
            raise ConfigError(f"Muon scale: expected one of {', '.join(SCALES)}, got {scale!r}")
        if not (0 <= momentum < 1 and steps >= 1):
            raise ConfigError(
                f"Muon: expected 0 <= momentum < 1 and steps >= 1, got {momentum} and {steps}"
            )
        self.momentum, self.steps, self.scale, self.unit_norm = momentum, steps, scale, unit_norm
        every = [p for p in params if p.requires_grad]
        kernels = [p for p in every if p.ndim == 4 and len(p) >= 8]
        taken = {id(p) for p in kernels}
        rest = [p for p in every if id(p) not in taken]
        groups = [{"params": kernels, "lr": lr}, {"params": rest, "lr": rest_lr}]
        super().__init__(groups, lr, betas, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Muon's step on the first group, AdamW's on the second."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        kernels, rest = self.param_groups
        for kernel in kernels["params"]:
            if kernel.grad is not None:
                self._move(kernel, kernels["lr"], kernels["weight_decay"])
        self.param_groups = [rest]  # AdamW steps through every group it has
        try:
            super().step()
        finally:
            self.param_groups = [kernels, rest]
        return loss

    def _move(self, kernel: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[kernel]
        if not state:
            state["step"] = torch.zeros(())  # AdamW looks for it when a checkpoint is restored
            state["momentum_buffer"] = torch.zeros_like(kernel)
        state["step"] += 1
        average = state["momentum_buffer"].lerp_(kernel.grad, 1 - self.momentum)
        ahead = kernel.grad.lerp(average, self.momentum).flatten(1)  # type: ignore[union-attr]
        update = zeropower_via_newtonschulz(ahead, self.steps, COEFFICIENTS, dtype=torch.float32)
        rate = lr * get_lr_scale(update.shape, self.scale)
        kernel.mul_(1 - lr * weight_decay).sub_(update.view_as(kernel).to(kernel), alpha=rate)
        if self.unit_norm:
            kernel.mul_(len(kernel) ** 0.5 / kernel.norm())
