"""What a purifier does to images: where the reverse loop takes them, and where they end."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from adpur.defense.defense import Defense
from adpur.diffusion.reverse import Seen
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Source, Stream
from adpur.keyed.rows import mapped
from adpur.purify.base import Context, Levels
from adpur.purify.chain import brought
from adpur.types import expand, to_signed

Look = Callable[[Tensor, Tensor], Tensor]
"""`look(x, row)`: what is kept of signed images `(n, C, H, W)`, which are rows `row` `(n,)`."""


class Path(NamedTuple):
    """Times `(K+1, B)` and what was kept there `(K+1, B, ...)`, from x_t* to the purified image.

    Rows that take fewer steps wait on the left, as in `Grid.times`. The last time is 0.
    """

    t: Tensor
    kept: Tensor


def walk(defense: Defense, x: Tensor, noise: Noise, look: Look) -> Path:
    """Purify images in [0, 1] under these keys and keep what `look` says of every state.

    Of an ensemble, the first vote; of rounds, one after the other; of states of another size, what
    they are at the images'. What is kept alone is in memory.
    """
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def tap(now: Seen) -> None:
        own = (now.row < len(x)).nonzero().flatten()  # the others are further votes
        image = brought(now.x[own.to(now.x.device)], tuple(x.shape[2:]))
        seen.append((now.row[own], now.t[own].double(), look(image, now.row[own]).cpu()))

    with torch.no_grad():
        out = defense(x, noise, tap=tap)
    if not seen:
        raise ConfigError("this analysis watches the reverse loop; a row it was given never walks")
    end, everyone = torch.zeros(len(x), dtype=torch.float64), torch.arange(len(x))
    seen.append((everyone, end, look(to_signed(out.image), everyone).cpu()))
    row, t, kept = (torch.cat(column) for column in zip(*seen, strict=True))
    return _ordered(row, t, kept, len(x))


def _ordered(row: Tensor, t: Tensor, kept: Tensor, count: int) -> Path:
    """States as they came, which is in order for each row, whatever thread and lane it was in."""
    order, states = row.argsort(stable=True), row.bincount(minlength=count)
    longest = int(states.max())
    turn = torch.arange(longest)[:, None] - (longest - states)
    place = order[turn.clamp_min(0) + states.cumsum(0) - states]
    return Path(t[place], kept[place])


def purified(defense: Defense, x: Tensor, noise: Noise, known: Levels | None = None) -> Tensor:
    """Purified images, of any `x`: a question of geometry may leave [0, 1], as a `Defense` may not.

    Of an ensemble, one vote. At these levels, or at their own.
    """
    levels = known if known is not None else defense.levels(x, noise)
    context = Context(defense.networks, defense.rows)

    def work(part: Tensor) -> list[Tensor]:
        rows = part.to(x.device)
        return [defense.purifier.purify(x[rows], noise[rows], levels.at(part), context).image]

    with torch.no_grad():
        return mapped(work, parts(len(x), 16 * defense.rows), defense.threads)[0]


def parts(count: int, most: int) -> list[Tensor]:
    """Row numbers in parts of at most so many."""
    return list(torch.split(torch.arange(count), most))


def draws(noise: Noise, count: int, start: int = 0) -> Noise:
    """Keys of evaluation draws start..start + count - 1 of each row, draw-major."""
    keys = noise.fold(source=Source.EVALUATE).repeat(count)
    return keys.fold(draw=torch.as_tensor(keys.draw) + start)


def perturbations(x: Tensor, keys: Noise, length: float) -> Tensor:
    """Random directions `(n, C, H, W)` for images `x`, of this L2 length; one for each key.

    They leave [0, 1]: clipped at images with black pixels, they would all point inwards and
    correlate.
    """
    z = keys.fold(source=Source.ATTACK).normal(x, Stream.ATTACK)
    return z * expand(length / z.double().flatten(1).norm(dim=1), z)


def signs_length(x: Tensor, eps: float) -> float:
    """The L2 length of a sign perturbation of `eps`: eps sqrt(C H W)."""
    size: int = x[0].numel()
    return eps * math.sqrt(size)
