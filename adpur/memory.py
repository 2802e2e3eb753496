"""What a differentiated step keeps for its backward pass."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from adpur.errors import ConfigError
from adpur.rows import uncounted

Body = Callable[..., Sequence[Tensor]]
GIB = 2**30


class Memory(ABC):
    """How one step of a purifier is run when its gradient will be asked for."""

    @abstractmethod
    def run(self, body: Body, *inputs: Tensor, kind: Hashable = None) -> Sequence[Tensor]:
        """`body(*inputs)`; bodies of one `kind` on inputs of one shape need equal memory."""


@dataclass(frozen=True)
class Keep(Memory):
    """Keep every activation."""

    def run(self, body: Body, *inputs: Tensor, kind: Hashable = None) -> Sequence[Tensor]:
        """The body's result."""
        return body(*inputs)


@dataclass(frozen=True)
class Recompute(Memory):
    """Keep the inputs alone: memory stays flat in the number of steps for one more forward each.

    Keyed noise makes the recomputation exact without saving any generator's state.
    """

    def run(self, body: Body, *inputs: Tensor, kind: Hashable = None) -> Sequence[Tensor]:
        """The body's result, without its activations."""
        if not torch.is_grad_enabled():
            return body(*inputs)
        found: Sequence[Tensor] = _Recomputed.apply(body, *inputs)
        return found


@dataclass(frozen=True)
class Budget(Memory):
    """Keep the steps that fit into `size` GiB and recompute the others.

    A step's bytes are counted as autograd saves them, once for each kind of step; the first step
    of a kind is therefore recomputed. One step is held in reserve for the recomputation itself.
    Weights are not counted: they are there anyway. The threads of a defence share the budget.
    """

    size: float
    ledger: "Ledger" = field(default_factory=lambda: Ledger(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.size > 0:
            raise ConfigError(f"a memory budget must be positive GiB, got {self.size}")

    def run(self, body: Body, *inputs: Tensor, kind: Hashable = None) -> Sequence[Tensor]:
        """The body's result, kept or not."""
        if not torch.is_grad_enabled():
            return body(*inputs)
        key = (kind, tuple(v.shape for v in inputs))
        if (need := self.ledger.sizes.get(key)) is None:
            with uncounted():
                need = self.ledger.sizes[key] = saved_bytes(body, *inputs)
        lease = self.ledger.lease(need, int(self.size * GIB))
        if lease is None:
            return Recompute().run(body, *inputs)
        first, *rest = body(*inputs)
        held: Tensor = _Held.apply(first, lease)
        return [held, *rest]


class Ledger:
    """Bytes leased to the steps of live graphs; `peak` is the most there ever were."""

    def __init__(self) -> None:
        self.sizes: dict[Hashable, int] = {}
        self.used = self.peak = 0
        self._lock = threading.RLock()  # a lease may be collected while another is made

    def lease(self, need: int, limit: int) -> "Lease | None":
        """A lease of `need` bytes, or None if they and one more step would not fit."""
        with self._lock:
            if self.used + 2 * need > limit:
                return None
            self.used += need
            self.peak = max(self.peak, self.used + need)
        return Lease(self, need)

    def give_back(self, need: int) -> None:
        """End a lease."""
        with self._lock:
            self.used -= need


class Lease:
    """Bytes that are given back when the graph that holds them is gone."""

    def __init__(self, ledger: Ledger, need: int) -> None:
        self.ledger, self.need = ledger, need

    def __del__(self) -> None:
        self.ledger.give_back(self.need)


def saved_bytes(body: Body, *inputs: Tensor) -> int:
    """Bytes autograd keeps for one run of `body`, weights left out, each storage once."""
    seen: dict[int, int] = {}

    def pack(v: Tensor) -> Tensor:
        owner = v if v._base is None else v._base
        if not isinstance(owner, nn.Parameter):
            storage = v.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
        return v

    with torch.enable_grad(), saved_tensors_hooks(pack, lambda v: v):
        graph = body(*(_fresh(v, v.is_floating_point()) for v in inputs))  # alive while counted
    del graph
    return sum(seen.values())


class _Held(torch.autograd.Function):
    """The identity, with a lease that lives as long as the graph."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, lease: Lease) -> Tensor:
        ctx.lease = lease
        return v.view_as(v)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, body: Body, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.body = body
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        with torch.no_grad():
            return tuple(body(*inputs))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[1:]
        inputs = [_fresh(v, need) for v, need in zip(ctx.saved_tensors, wanted, strict=True)]
        with torch.enable_grad():
            outputs = ctx.body(*inputs)
        pairs = [
            (o, g) for o, g in zip(outputs, grads, strict=True) if g is not None and o.requires_grad
        ]
        sources = [v for v, need in zip(inputs, wanted, strict=True) if need]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs], sources, [g for _, g in pairs], allow_unused=True
            )
        )
        return (None, *(next(found) if need else None for need in wanted))


def _fresh(v: Tensor, need: bool) -> Tensor:
    return v.detach().requires_grad_(need)
