"""What a differentiated step keeps for its backward pass."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.autograd.graph import saved_tensors_hooks

from adpur.errors import ConfigError
from adpur.keyed.rows import uncounted

Body = Callable[..., Sequence[Tensor]]
GIB = 2**30


class Memory(ABC):
    """How one step of a purifier is run when its gradient will be asked for."""

    @abstractmethod
    def run(self, body: Body, *inputs: Tensor, kind: Hashable = None) -> Sequence[Tensor]:
        """`body(*inputs)`; bodies of one `kind` on inputs of one shape need equal memory."""

    @abstractmethod
    def shared(self, workers: int) -> "Memory":
        """The same rule where `workers` threads follow it at a time."""


@dataclass(frozen=True)
class Keep(Memory):
    """Keep every activation."""

    def run(self, body: Body, *inputs: Tensor, kind: Hashable = None) -> Sequence[Tensor]:
        """The body's result."""
        return body(*inputs)

    def shared(self, workers: int) -> "Keep":
        """Itself."""
        return self


@dataclass(frozen=True)
class Recompute(Memory):
    """Keep the inputs alone: memory stays flat in the number of steps for one more forward each.

    Keyed noise makes the recomputation exact without saving any generator's state.
    """

    def run(self, body: Body, *inputs: Tensor, kind: Hashable = None) -> Sequence[Tensor]:
        """The body's result, without its activations."""
        if not torch.is_grad_enabled():
            return body(*inputs)
        found: Sequence[Tensor] = _Apart.apply(body, None, *inputs)
        return found

    def shared(self, workers: int) -> "Recompute":
        """Itself."""
        return self


@dataclass(frozen=True)
class Budget(Memory):
    """Keep the steps that fit into `size` GiB and recompute the others.

    A step's bytes are counted as autograd saves them, by one more forward for each kind of step.
    A step for each worker is held in reserve for recomputations. Weights are not counted: they
    are there anyway. Kept or recomputed, a step has the same bits.
    """

    size: float
    workers: int = 1
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
        lease = self.ledger.lease(need, self.workers, int(self.size * GIB))
        found: Sequence[Tensor] = _Apart.apply(body, lease, *inputs)
        return found

    def shared(self, workers: int) -> "Budget":
        """The same budget, spent by so many threads at once."""
        return replace(self, workers=workers)


class Ledger:
    """Bytes leased to the steps of live graphs; `peak` is the most there ever were."""

    def __init__(self) -> None:
        self.sizes: dict[Hashable, int] = {}
        self.used = self.peak = 0
        self._lock = threading.RLock()  # a lease may be collected while another is made

    def lease(self, need: int, workers: int, limit: int) -> "Lease | None":
        """A lease of `need` bytes, or None if they and a step for each worker would not fit."""
        with self._lock:
            most = self.used + (1 + workers) * need
            if most > limit:
                return None
            self.used += need
            self.peak = max(self.peak, most)
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


class _Apart(torch.autograd.Function):
    """A body differentiated on inputs of its own, its graph kept with the lease or rebuilt."""

    @staticmethod
    def forward(ctx: Any, body: Body, lease: Lease | None, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.body, ctx.lease, ctx.graph = body, lease, None
        ctx.save_for_backward(*inputs)
        ctx.set_materialize_grads(False)
        if lease is None:
            with torch.no_grad():
                return tuple(body(*inputs))
        ctx.graph = _graph(body, inputs, ctx.needs_input_grad[2:])
        return tuple(v.detach() for v in ctx.graph[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        wanted = ctx.needs_input_grad[2:]
        inputs, outputs = ctx.graph or _graph(ctx.body, ctx.saved_tensors, wanted)
        ctx.graph = None
        pairs = [
            (o, g) for o, g in zip(outputs, grads, strict=True) if g is not None and o.requires_grad
        ]
        sources = [v for v, need in zip(inputs, wanted, strict=True) if need]
        found = iter(
            torch.autograd.grad(
                [o for o, _ in pairs], sources, [g for _, g in pairs], allow_unused=True
            )
        )
        return (None, None, *(next(found) if need else None for need in wanted))


def _graph(
    body: Body, inputs: Sequence[Tensor], wanted: Sequence[bool]
) -> tuple[list[Tensor], Sequence[Tensor]]:
    apart = [_fresh(v, need) for v, need in zip(inputs, wanted, strict=True)]
    with torch.enable_grad():
        return apart, body(*apart)


def _fresh(v: Tensor, need: bool) -> Tensor:
    return v.detach().requires_grad_(need)
