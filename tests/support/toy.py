"""A whole evaluation in milliseconds: closed-form networks, 12 images."""

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from problems import SHAPE, LinearClassifier, WavyDenoiser, images
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from adpur import (
    BPDA,
    PGD,
    Constant,
    Diffusion,
    Evaluation,
    Identity,
    Networks,
    Reference,
    Reweighted,
    Robustness,
    Row,
    ScoreNorm,
    Sigmoid,
    Strided,
)
from adpur.lit.data.base import Batch, ImageData, Split
from adpur.lit.run.trainer import Trainer
from adpur.models.checkpoints.fingerprint import fingerprint

MADE_WITH = fingerprint(WavyDenoiser())
REFERENCE = Reference(30, 8, 20, 45, count=9, horizon=20, levels=5, scorer=MADE_WITH)
DIFFPURE = Diffusion(Constant(60), Strided(20))
SSNI = Diffusion(Reweighted(60, Sigmoid(5.0), REFERENCE, ScoreNorm(20, 5)), Strided(20))
ATTACK = PGD(eps=0.3, steps=2, eot=2)


class Toy(ImageData):
    shape, classes = SHAPE, 3

    def __init__(self, size: int = 12, **kwargs: Any) -> None:
        super().__init__(**{"batch_size": 5} | kwargs)
        self.size = size

    def split(self, name: Split) -> Dataset[Batch]:
        x = images(self.size, torch.float32)
        y = LinearClassifier()(x).argmax(1)
        return TensorDataset(x, y, 100 + torch.arange(self.size))  # type: ignore[return-value]


def evaluation(**kwargs: Any) -> Evaluation:
    rows = {"undefended": Row(Identity()), "diffpure": Row(DIFFPURE), "ssni": Row(SSNI)}
    nets = {"default": Networks(LinearClassifier(), WavyDenoiser())}
    return Evaluation(nets, **{"defenses": rows, "draws": 3, "rows": 4, "trust": "none"} | kwargs)


def blocks() -> list[pl.Callback]:
    return [
        Robustness("pgd", ATTACK, eps=[0.0, 0.3]),
        Robustness("bpda", ATTACK, BPDA(), only=["diffpure", "ssni"]),
    ]


def trainer(folder: Path, callbacks: list[Any] | None = None, **kwargs: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    plain = {"accelerator": "cpu", "enable_checkpointing": False, "default_root_dir": str(folder)}
    return Trainer(callbacks=blocks() if callbacks is None else callbacks, **plain | quiet | kwargs)


def run(
    folder: Path, module: Evaluation | None = None, data: ImageData | None = None, **kwargs: Any
) -> Evaluation:
    module = module or evaluation()
    trainer(folder, **kwargs).test(module, data or Toy(), verbose=False)
    return module


def rows(folder: Path) -> list[str]:
    """Every record line, whichever process wrote it."""
    return sorted(line for f in folder.glob("rows-*.jsonl") for line in f.read_text().splitlines())


def in_child(work: Callable[[], Any]) -> int:
    """Run in a forked process, which skips the imports; its exit code, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed_after(adds: int) -> Callable[[], None]:
    """Make the process kill itself, as `kill -9` would, in the middle of its n-th record."""
    from adpur.judging.records import Records

    plain, count = Records._append, [0]

    def append(self: Records, kind: str, entries: list[dict[str, Any]]) -> None:
        plain(self, kind, entries)
        count[0] += kind == "rows"
        if count[0] == adds:
            file = self.files["rows"]
            with file.open("r+b") as stream:  # the torn line a real crash leaves
                stream.truncate(file.stat().st_size - 7)
            os.kill(os.getpid(), signal.SIGKILL)

    def install() -> None:
        Records._append = append  # type: ignore[method-assign]

    return install


def labels(x: Tensor) -> Tensor:
    return LinearClassifier()(x).argmax(1)
