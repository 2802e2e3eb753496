"""One attack iteration against a script as the field writes it, one habit at a time.

The script has adpur's arithmetic and, in a check before the clock starts, its noise and so its
gradient; a round of the clock draws with torch.randn. Its habits: EOT as a loop of B-row calls,
weights that ask for gradients too, every row masked to the longest t(x), every step checkpointed.

    python benchmarks/field.py [--pairs 15] [--out FILE]
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from timing import ROWS, Line, Setting, ratio, report, timed
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from adpur import Defense, Exact, Noise, Oracle, Stream, ssni_n

IMAGES, EOT, EPS = 64, 10, 5
Draw = Callable[[Tensor, Stream, Tensor, int], Tensor]
"""`draw(like, stream, rows, to_go)`: unit noise of some of the EOT x B rows."""


@dataclasses.dataclass(frozen=True)
class Habits:
    """What a script of the field does and adpur does not."""

    loop: bool = False
    weights: bool = False
    masked: bool = False
    checkpointed: bool = False


ALL = Habits(True, True, True, True)
HABITS = {
    "no habit: the plain script": Habits(),
    "(a) EOT as a loop of calls": Habits(loop=True),
    "(b) weight gradients too": Habits(weights=True),
    "(c) masked to the longest t(x)": Habits(masked=True),
    "(d) every step checkpointed": Habits(checkpointed=True),
    "(e) all of them": ALL,
}


def lines(setting: Setting) -> Iterator[Line]:
    """Each habit at 5 steps; at 20 the extremes."""
    yield from compared(setting, 5, HABITS, setting.few)
    yield from compared(setting, 20, {"(e) all of them": ALL}, max(2, setting.pairs // 4))


def compared(
    setting: Setting, steps: int, habits: dict[str, Habits], rounds: int
) -> Iterator[Line]:
    """Scripts against adpur in the same rounds, after their gradients were found equal."""
    stride = 100 // steps
    purifier = ssni_n("digits/diffusion", 100, stride, tau=1, relative=True, levels=EPS)
    defense, (x, y, noise) = Defense(purifier, setting.nets, ROWS), setting.first(IMAGES)
    oracle = Oracle(defense, Exact().view(purifier), y, noise)
    scripts = {name: Script(defense, x, y, stride, habit) for name, habit in habits.items()}
    far = max(difference(script, oracle, x) for script in scripts.values())
    works = {"adpur": lambda: oracle.value_and_grad(x, 0, EOT)}
    works |= {name: script.timed for name, script in scripts.items()}
    found = timed(works, rounds, warm=1)
    told = f"{steps} steps, {IMAGES} images, EOT {EOT}, gradient equal to {far:.0e}"
    for name, habit in habits.items():
        aim = ">= 2" if habit == ALL else ""
        yield Line(f"{told}: {name} / adpur", ratio(found[name], found["adpur"], 2), aim)


def difference(script: Script, oracle: Oracle, x: Tensor) -> float:
    """Relative distance of the script's gradient under adpur's noise from adpur's."""
    keys = oracle.knowledge.attack(oracle.noise, 0, EOT)

    def draw(like: Tensor, stream: Stream, rows: Tensor, to_go: int) -> Tensor:
        return keys[rows].fold(step=to_go).normal(like, stream)

    _, want = oracle.value_and_grad(x, 0, EOT)
    found = ((script.gradient(draw, keys[: len(x)]) - want).norm() / want.norm()).item()
    assert found < 1e-5, f"the script's gradient is another one: {found}"
    return found


class Script:
    """The iteration as a file `attack.py` would hold it."""

    def __init__(self, defense: Defense, x: Tensor, y: Tensor, stride: int, habits: Habits) -> None:
        self.nets = copy.deepcopy(defense.networks).requires_grad_(habits.weights)
        self.schedule, self.level = self.nets.denoiser.schedule, defense.purifier.level
        self.x, self.y, self.stride, self.habits = x, y, stride, habits
        self.eps = Noise(torch.arange(len(x)))

    def timed(self) -> None:
        """As the clock sees it."""
        self.gradient(lambda like, *_: torch.randn_like(like), self.eps)

    def gradient(self, draw: Draw, keys: Noise) -> Tensor:
        """Mean gradient of the loss over the EOT copies."""
        with torch.no_grad():
            norm = self.level.measure(2 * self.x - 1, self.nets.scorer, keys)
        t = (self.level.level(norm, keys) / self.stride + 0.5).long() * self.stride
        rows, shape = torch.arange(EOT * len(self.x)), (EOT, *self.x.shape)
        if not self.habits.loop:
            return self.backward(draw, rows, t.repeat(EOT)).view(shape).mean(0)
        return sum(self.backward(draw, part, t) for part in rows.view(EOT, -1)) / EOT

    def backward(self, draw: Draw, rows: Tensor, t: Tensor) -> Tensor:
        """Gradients of some rows by one backward pass."""
        own = rows % len(self.x)
        x = self.x[own].clone().requires_grad_()
        logits = self.nets.classifier((self.purified(2 * x - 1, draw, rows, t) + 1) / 2)
        F.cross_entropy(logits, self.y[own], reduction="sum").backward()
        return x.grad

    def purified(self, x: Tensor, draw: Draw, rows: Tensor, t: Tensor) -> Tensor:
        """Diffuse to t(x); rows join as the countdown reaches theirs."""
        x = self.schedule.diffuse(x, t, draw(x, Stream.FORWARD, rows, 0))
        for to_go in range(int(t.max()) // self.stride, 0, -1):
            live, now = t >= to_go * self.stride, torch.full_like(t, to_go * self.stride)
            if self.habits.masked:
                moved = self.moved(x, now, draw(x, Stream.REVERSE, rows, to_go))
                x = torch.where(live.view(-1, 1, 1, 1), moved, x)
            else:
                part = x[live]
                z = draw(part, Stream.REVERSE, rows[live], to_go)
                x = x.index_put((live,), self.moved(part, now[live], z))
        return x

    def moved(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """A step, checkpointed as torch does by default or not."""
        if self.habits.checkpointed:
            return checkpoint(self.step, x, t, z, use_reentrant=True)
        return self.step(x, t, z)

    def step(self, x: Tensor, t: Tensor, z: Tensor) -> Tensor:
        """DDPM's posterior (Ho et al. 2020, Eq. 7) from t to t - stride."""
        now, then = (self.abar(v) for v in (t, t - self.stride))
        share = now / then
        x0 = self.nets.denoiser(x, t)
        mean = (
            then.sqrt() * (1 - share) / (1 - now) * x0 + share.sqrt() * (1 - then) / (1 - now) * x
        )
        return mean + ((1 - share) * (1 - then) / (1 - now)).sqrt() * z

    def abar(self, t: Tensor) -> Tensor:
        """alpha_t^2, broadcast over an image."""
        return self.schedule.alpha(t).float().view(-1, 1, 1, 1) ** 2


if __name__ == "__main__":
    report([lines], __doc__)
