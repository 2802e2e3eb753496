"""What a memory budget buys, and how peak memory grows with the steps.

python benchmarks/memory.py [--pairs 15] [--out FILE]
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import ROWS, Line, Setting, Work, forward, loaded, ratio, report, timed
from torch import Tensor

from adpur import Budgeted, Checkpointed, Defense, Exact, Purifier, ddpm
from adpur.defense.gradient import Remembered
from adpur.keyed.memory import GIB, Budget

STEPS, SHARES, MANY = 20, (0.2, 0.4, 0.6, 0.8), 512


def lines(setting: Setting) -> Iterator[Line]:
    """Budgets, then peaks."""
    yield from budgets(setting)
    yield peaks()


def budgets(setting: Setting) -> Iterator[Line]:
    """Time and planned bytes at budgets between one step and all of them."""
    purifier = ddpm(5 * STEPS, 5)
    need = planned(setting, purifier)
    views = {
        f"{share:.0%}": Budgeted(share * STEPS * need / GIB).view(purifier) for share in SHARES
    }
    modes = {"kept": Exact().view(purifier), "checkpointed": Checkpointed().view(purifier)}
    found = timed(
        {name: graded(setting, view, ROWS) for name, view in (modes | views).items()},
        setting.few,
        warm=1,
    )
    for name, view in views.items():
        told = f"budget {name}: {bounds(view, need)} / all {STEPS} kept"
        yield Line(told, ratio(found[name], found["kept"]), "monotone")
    told = f"checkpointed: 0 of {STEPS} kept / all {STEPS} kept"
    yield Line(told, ratio(found["checkpointed"], found["kept"]))


def planned(setting: Setting, purifier: Purifier) -> int:
    """Bytes of one step, as a budget counts them."""
    view = Budgeted(1e3).view(purifier)
    graded(setting, view, ROWS)()
    (need,) = ledger(view).sizes.values()
    return need


def bounds(view: Purifier, need: int) -> str:
    """What the ledger says after the runs."""
    peak, size = ledger(view).peak, view.memory.size * GIB
    return (
        f"planned {peak / 2**20:.1f} of {size / 2**20:.1f} MiB, {peak // need - 1} of {STEPS} kept"
    )


def ledger(view: Purifier):
    """Of a budgeted view."""
    assert isinstance(view, Remembered)
    assert isinstance(view.memory, Budget)
    return view.memory.ledger


def graded(setting: Setting, view: Purifier, rows: int) -> Work:
    """The gradient of R rows through a view."""
    defense, (x, y, noise) = Defense(view, setting.nets, rows), setting.first(rows)
    levels = defense.levels(x, noise)

    def loss(logits: Tensor, part: Tensor) -> Tensor:
        return F.cross_entropy(logits, y[part], reduction="none")

    return lambda: defense.loss_and_grad(x, noise, levels, loss, view)


def peaks() -> Line:
    """Resident memory above the interpreter's, 100 steps against 5, each in its own process."""
    base, few, many = (peak(steps) for steps in (0, 5, 100))
    what = f"peak memory, checkpointed, {MANY} rows, net of {base:.0f} MiB: 100 steps "
    what += f"({many - base:.0f} MiB) / 5 steps ({few - base:.0f} MiB)"
    return Line(what, f"{(many - base) / (few - base):.2f}", "<= 1.5")


def peak(steps: int) -> float:
    """MiB of a fresh process."""
    command = [sys.executable, __file__, "--peak", str(steps)]
    return float(subprocess.check_output(command, text=True))


def alone(steps: int) -> None:
    """In a process of its own: one forward of a row, or the gradient of many; print the peak."""
    setting = loaded(1)
    forward(setting.nets.denoiser, setting.x[:1], torch.tensor([50]))
    forward(setting.nets.classifier, setting.x[:1])
    if steps:
        purifier = ddpm(steps, 1)
        graded(setting, Checkpointed().view(purifier), MANY)()
    # not getrusage, whose maximum a child inherits from the process that forked it
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)


if __name__ == "__main__":
    if "--peak" in sys.argv:
        alone(int(sys.argv[-1]))
    else:
        report([lines], __doc__)
