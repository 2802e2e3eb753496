"""Networks whose gradient will itself be differentiated."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode


class SecondOrder(TorchFunctionMode):
    """Inside, attention is computed by operations that can be differentiated twice.

    torch's fused attention (`scaled_dot_product_attention` and what calls it) has a backward pass
    without a derivative. Here the same formula, softmax(q k^T / sqrt(d)) v, is made of matrix
    products; values differ by rounding. Only this thread sees it, unlike
    `torch.nn.attention.sdpa_kernel`, whose choice is the process's: another thread's bits must not
    depend on when this one works. (`nn.MultiheadAttention` leaves no other choice.)

    >>> q = torch.ones(1, 1, 2, 4, requires_grad=True)
    >>> with SecondOrder():
    ...     out = F.scaled_dot_product_attention(q, q, q)
    >>> (grad,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    >>> torch.autograd.grad(grad.sum(), q)[0].isfinite().all().item()
    True
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call what was called, or attention's plain form in its place."""
        if func is F.scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        if func is F.multi_head_attention_forward:  # calls it where no mode is asked
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _attention(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> Any:
    """The composite form that torch has itself, which returns its weights too."""
    plain = torch.ops.aten._scaled_dot_product_attention_math
    return plain(query, key, value, *rest, **more)[0]
