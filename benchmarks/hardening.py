"""A step of ADDT against the network calls Algorithm 1 asks for, and a fit on two processes.

The floor is five times a forward and the input-backward of both networks, then a forward, the full
backward, clipping, the optimizer's step and the average of the denoiser's weights, on inputs that
are there. The step is all that Lightning runs for a batch: data, keyed noise, RBGM, logging.

    python benchmarks/hardening.py [--pairs 15] [--out FILE]
"""

from __future__ import annotations

import copy
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.utilities import disable_possible_user_warnings
from timing import ROWS, Line, Setting, Work, cpu, ratio, report
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from adpur import ADDT, EMA, CifarResNet, Classifier, EpsDenoiser, Networks, addt_paper, pretrained
from adpur.diffusion.adapters import DiffusersNet
from adpur.diffusion.schedule import DiscreteVP
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.run.trainer import Trainer
from adpur.models.checkpoints.zoo import build_unet

STEPS, WARM = 5, 3
SMALL = {
    "sample_size": 32, "in_channels": 3, "out_channels": 3, "layers_per_block": 1,
    "block_out_channels": [32, 64], "norm_num_groups": 8, "add_attention": False,
    "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2, "dropout": 0.1,
}  # fmt: skip


class Same(ImageData):
    """Random images, as many batches as asked for."""

    def __init__(self, shape: tuple[int, int, int], batch_size: int, batches: int) -> None:
        super().__init__(batch_size=batch_size)
        self.shape, self.classes, self.size = shape, 10, batch_size * batches

    def split(self, name: Split) -> Dataset[Batch]:
        x = torch.rand(self.size, *self.shape, generator=torch.Generator().manual_seed(0))
        index = torch.arange(self.size)
        return TensorDataset(x, index % 10, index)


class Clock(Callback):
    """CPU time between the ends of batches, less what the floor took in between."""

    def __init__(self, floor: Work | None = None) -> None:
        self.floor, self.steps, self.floors, self.walls = floor, [], [], []

    def on_train_start(self, *args) -> None:
        self.start, self.wall = time.process_time(), time.perf_counter()

    def on_train_batch_end(self, *args) -> None:
        self.steps.append(time.process_time() - self.start)
        self.walls.append(time.perf_counter() - self.wall)
        if self.floor is not None:
            self.floors.append(cpu(self.floor))
        self.on_train_start()


def lines(setting: Setting) -> Iterator[Line]:
    """The two networks, then two processes."""
    yield against(digits(), (1, 8, 8), ROWS, setting.pairs, f"digits networks, batch {ROWS}")
    told = "U-Net of 0.6 M parameters and ResNet-20 on 32x32 images, batch 8"
    yield against(cifar(), (3, 32, 32), 8, setting.pairs, told)
    yield scaling(setting.few)


def digits() -> Networks:
    return pretrained("digits/classifier", "digits/diffusion")


def cifar() -> Networks:
    classifier = Classifier(CifarResNet(3), (3, 32, 32))
    net = DiffusersNet(build_unet(SMALL, "unet"))
    return Networks(classifier, EpsDenoiser(net, DiscreteVP(), (3, 32, 32)))


def against(nets: Networks, shape: tuple[int, int, int], batch: int, pairs: int, told: str) -> Line:
    """Steps of a fit, each followed by its floor."""
    module = ADDT("unused", nets, addt_paper(steps=STEPS))
    clock = Clock(Floor(module, shape, batch))
    fit(module, Same(shape, batch, pairs + WARM), clock)
    ours, floor = (torch.tensor(v[WARM:]).numpy() for v in (clock.steps, clock.floors))
    return Line(f"ADDT, {told}: a step / its floor", ratio(ours, floor), "<= 1.10")


class Floor:
    """The network calls of a step, on copies of the weights."""

    def __init__(self, module: ADDT, shape: tuple[int, int, int], batch: int) -> None:
        self.net: nn.Module = copy.deepcopy(module.denoiser.net).train()
        self.average = copy.deepcopy(self.net)
        self.guide = module.guide.network
        self.optimizer = torch.optim.AdamW(self.net.parameters(), 1e-4, fused=True)
        self.x = torch.randn(batch, *shape)
        self.t, self.y = torch.full((batch,), 300), torch.arange(batch) % 10

    def __call__(self) -> None:
        self.net.requires_grad_(False)
        for _ in range(STEPS):
            x = self.x.clone().requires_grad_()
            loss = F.cross_entropy(self.guide(self.net(x, self.t)), self.y, reduction="sum")
            torch.autograd.grad(loss, x)
        self.net.requires_grad_(True)
        self.optimizer.zero_grad()
        self.net(self.x, self.t).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        own, averaged = (list(n.parameters()) for n in (self.net, self.average))
        with torch.no_grad():
            torch._foreach_lerp_(averaged, own, 0.1)


def fit(module: ADDT, data: ImageData, clock: Clock, **kwargs: object) -> None:
    """One epoch, quietly, without validation."""
    disable_possible_user_warnings()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    with tempfile.TemporaryDirectory() as folder:
        module.export = Path(folder)
        Trainer(accelerator="cpu", max_epochs=1, limit_val_batches=0, gradient_clip_val=1.0,
                callbacks=[EMA(), clock], enable_checkpointing=False, default_root_dir=folder,
                **quiet | kwargs).fit(module, data)  # fmt: skip


def scaling(rounds: int) -> Line:
    """Images a second of two processes over one's, a thread each, by the clock on the wall."""
    one, two = (torch.tensor([alone(n) for _ in range(max(2, rounds // 3))]) for n in (1, 2))
    told = "ADDT, digits networks, batch 128 a process: images a second, 2 processes (gloo) / 1"
    return Line(told, ratio(two.numpy(), one.numpy(), 2), "")


def alone(processes: int) -> float:
    """In processes of their own."""
    command = [sys.executable, __file__, "--processes", str(processes)]
    said = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL)
    return float(next(line for line in said.splitlines() if line[:1].isdigit()))


def throughput(processes: int) -> None:
    """Print images a second, the median over steps."""
    torch.set_num_threads(1)
    more = {"devices": processes, "strategy": "ddp_fork"} if processes > 1 else {}
    data = Same((1, 8, 8), ROWS, 12 * processes)
    fit(ADDT("unused", digits(), addt_paper()), data, Told(), **more)


class Told(Clock):
    """A clock that tells: what a process has measured ends with it."""

    def on_train_end(self, trainer, pl_module) -> None:
        rate = trainer.world_size * ROWS / statistics.median(self.walls[WARM:])
        if trainer.is_global_zero:
            print(rate, flush=True)


if __name__ == "__main__":
    if "--processes" in sys.argv:
        throughput(int(sys.argv[-1]))
    else:
        report([lines], __doc__)
