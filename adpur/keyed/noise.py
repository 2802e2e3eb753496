"""Randomness as an argument: counter-based, keyed per row, independent of batch and device order.

A draw is a pure function of (seed, index, source, restart, iteration, draw, vote, stage, stream,
step), packed without collisions into the 192 bits of Philox4x32-10 (Salmon et al., SC 2011).
Nothing here reads or moves a global generator.

    word        bits
    counter 0   step 12 | block 20        block: four consecutive elements of the tensor
    counter 1   index 32                  the dataset row
    counter 2   restart 12 | iteration 20
    counter 3   draw 32                   EOT copy, evaluation draw or pool member
    key 0       seed 32
    key 1       vote 12 | stage 12 | stream 4 | source 4
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from adpur.errors import ConfigError

MASK = 0xFFFFFFFF
Value = Tensor | int  # one for all rows, or one per row (B,)


class Source(IntEnum):
    """Who draws. The attack, the selection of its result, and the evaluation never share keys."""

    EVALUATE = 0
    ATTACK = 1
    SELECT = 2
    POOL = 3
    CALIBRATE = 4
    TRAIN = 5


class Stream(IntEnum):
    """What a draw is for."""

    FORWARD = 0
    REVERSE = 1
    LEVEL = 2
    GUIDANCE = 3
    CORRECTOR = 4
    CHURN = 5
    OPTIMISE = 6
    ATTACK = 7
    TIME = 8
    AUGMENT = 9


ALL: frozenset[Stream] = frozenset(Stream) - {Stream.ATTACK, Stream.TIME, Stream.AUGMENT}
"""The streams a purifier consumes: what an attacker can know."""

LIMITS = {
    "seed": 32, "index": 32, "restart": 12, "iteration": 20, "draw": 32,
    "vote": 12, "stage": 12, "step": 12, "member": 32,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Noise:
    """The key of every draw a batch of rows will ever make.

    Args:
        index: dataset row of each batch row, int64 `(B,)`.
        seed: the run's seed.
        source, restart, iteration, draw, vote, stage, step: the rest of the key. `draw`, `vote`
            and `step` may differ per row, so that EOT copies and mixed steps share one call.
        pooled: streams whose noise the attacker knows; they are keyed by `member` alone.
        member: pool member of each row.

    >>> noise = Noise(torch.arange(3))
    >>> z = noise.normal(torch.zeros(3, 1, 8, 8), Stream.FORWARD)
    >>> bool((noise[1:].normal(torch.zeros(2, 1, 8, 8), Stream.FORWARD) == z[1:]).all())
    True
    """

    index: Tensor
    seed: int = 0
    source: Source = Source.EVALUATE
    restart: int = 0
    iteration: int = 0
    draw: Value = 0
    vote: Value = 0
    stage: int = 0
    step: Value = 0
    pooled: frozenset[Stream] = field(default=frozenset())
    member: Value = 0
    drawn: "tuple[Stream, Tensor] | None" = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name, bits in LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, Tensor):
                if value.is_cuda or not value.numel():
                    continue  # a look would stop the device; keys are made on the host
                value = int(value.max()) if int(value.min()) >= 0 else int(value.min())
            if not 0 <= value < 2**bits:
                raise ConfigError(f"noise key {name}={value} does not fit in {bits} bits")

    def fold(self, **names: Any) -> "Noise":
        """The same key with some parts replaced: `noise.fold(source=Source.ATTACK, draw=k)`."""
        return replace(self, **{"drawn": None} | names)

    def __getitem__(self, rows: Tensor | slice) -> "Noise":
        """The keys of some rows."""
        return self.fold(**{n: v[rows] for n, v in self._tensors()})

    def repeat(self, copies: int) -> "Noise":
        """`copies` of all rows, copy-major, each with its own `draw` 0, 1, ..."""
        return self.tiled("draw", copies)

    def tiled(self, name: str, copies: int) -> "Noise":
        """`copies` of all rows, copy-major, one part of the key counting them."""
        rows = {n: v.repeat(copies) for n, v in self._tensors()}
        count = torch.arange(copies, device=self.index.device).repeat_interleave(len(self.index))
        return self.fold(**rows | {name: count})

    def ahead(self, like: Tensor, stream: Stream, row: Tensor, step: Tensor) -> list["Noise"]:
        """Keys of L calls, call k on rows `row[k]` at `step[k]` `(L, R)`, their noise drawn now.

        One call for five steps of 128 small images costs a third of five calls.
        """
        keys = self[row.flatten().to(self.index.device)]
        keys = keys.fold(step=step.flatten().to(self.index.device))
        noise = keys.normal(like.new_empty(len(row) * row.shape[1], *like.shape[1:]), stream)
        parts = noise.view(*row.shape, *like.shape[1:])
        spans = [slice(k * row.shape[1], (k + 1) * row.shape[1]) for k in range(len(row))]
        return [
            keys[span].fold(drawn=(stream, part)) for span, part in zip(spans, parts, strict=True)
        ]

    def normal(self, like: Tensor, stream: Stream) -> Tensor:
        """Standard Gaussian noise of the shape, dtype and device of `like` `(B, ...)`.

        Box-Muller in fp64 whatever the dtype: runs in fp32 and fp64 see the same noise, and no
        last-bit difference of a vectorised logarithm survives the cast to fp32.
        """
        if self.drawn and self.drawn[0] is stream and self.drawn[1].shape == like.shape:
            return self.drawn[1]
        u = self._uniform(like, stream)
        radius, angle = u[:2].log().mul_(-2).sqrt_(), u[2:].mul_(2 * math.pi)
        return _shaped(torch.cat((angle.cos().mul_(radius), angle.sin().mul_(radius))), like)

    def uniform(self, like: Tensor, stream: Stream) -> Tensor:
        """Uniform noise on (0, 1) of the shape, dtype and device of `like` `(B, ...)`."""
        return _shaped(self._uniform(like, stream), like)

    def _uniform(self, like: Tensor, stream: Stream) -> Tensor:
        per_row = like[0].numel() if like.dim() > 1 else 1
        counter, key = self._words(stream, -(-per_row // 4), like.device)
        return philox(counter, key).double().add_(0.5).mul_(2.0**-32)

    def _words(
        self, stream: Stream, blocks: int, device: torch.device
    ) -> tuple[list[Tensor], list[Tensor]]:
        if blocks >= 2**20:
            raise ConfigError(
                f"an image of {4 * blocks} values is larger than a noise key can number"
            )
        known = stream in self.pooled
        source = Source.POOL if known else self.source
        place = 0 if known else self.restart << 20 | self.iteration

        def column(v: Value) -> Tensor:
            return torch.as_tensor(v, dtype=torch.int64, device=device).view(-1, 1)

        block = torch.arange(blocks, device=device).view(1, -1)
        counter = [
            column(self.step) << 20 | block,
            column(self.index) & MASK,
            column(place),
            column(self.member if known else self.draw),
        ]
        role = column(self.vote) << 20 | self.stage << 8 | stream << 4 | source
        return counter, [column(self.seed), role]

    def _tensors(self) -> Iterable[tuple[str, Tensor]]:
        names = ("index", "draw", "vote", "step", "member")
        return [(n, v) for n in names if isinstance(v := getattr(self, n), Tensor)]


def philox(counter: list[Tensor], key: list[Tensor]) -> Tensor:
    """Philox4x32-10 on int64 tensors holding 32-bit words: 4 counters, 2 keys -> `(4, ...)`.

    >>> zero = torch.zeros(1, dtype=torch.int64)
    >>> [f"{int(w):08x}" for w in philox([zero] * 4, [zero] * 2)[:, 0]]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    # Both halves of a round share their operations, whose number is what costs: `even` holds
    # (c0, c2) and (c2, c0) in turn, `odd` the words that are mixed into them.
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)  # type: ignore[no-untyped-call]
    k0, k1 = torch.broadcast_tensors(*key)  # type: ignore[no-untyped-call]
    even, odd = torch.stack((c0, c2)), torch.stack((c3, c1))
    lanes = (2, *[1] * c0.dim())
    factor, weyl = even.new_tensor(MULTIPLIERS), even.new_tensor(WEYL).view(lanes)
    factors = factor.view(lanes), factor.flip(0).view(lanes)
    turns = torch.arange(10, device=even.device).view(-1, *[1] * (k0.dim() + 1))
    keys = (torch.stack((k0, k1)) + turns * weyl).bitwise_and_(MASK)
    keys = torch.where(turns % 2 == 0, keys.flip(1), keys)
    for turn in range(10):
        product = even * factors[turn % 2]  # wraps modulo 2**64: the bits are right
        high = product.bitwise_right_shift(32)
        even = high.bitwise_xor_(odd).bitwise_xor_(keys[turn]).bitwise_and_(MASK)
        odd = product.flip(0)  # its upper half is masked away with the next `even`
    return torch.stack((even[0], odd[1], even[1], odd[0])).bitwise_and_(MASK)


MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)


def _shaped(words: Tensor, like: Tensor) -> Tensor:
    """`(4, B, blocks)` values as `like`: word by word, block by block, row by row."""
    per_row = like[0].numel() if like.dim() > 1 else 1
    values = words.permute(1, 2, 0).flatten(1)
    return values[:, :per_row].reshape(like.shape).to(like.dtype)
