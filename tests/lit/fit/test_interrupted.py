"""A fit that is ended anywhere goes on to the weights of one that was not."""

import os
import signal
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hardening import apart, fit
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from slurm import SLURM
from toy import in_child

from adpur import ADDT

pytestmark = pytest.mark.usefixtures("forks")

PARTS = {"batch_size": 4, "accumulate_grad_batches": 2}


class Before(pl.Callback):
    """Do something before the n-th call of a hook."""

    def __init__(self, hook: str, count: int, work: Callable[[], Any]) -> None:
        self.left, self.work = count, work
        setattr(self, hook, self._called)

    def _called(self, *args: Any, **kwargs: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.work()


class Validated(pl.Callback):
    """After which step, and with what result."""

    def __init__(self) -> None:
        self.found: dict[int, float] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert trainer.global_step not in self.found
        self.found[trainer.global_step] = trainer.callback_metrics["val/eps_mse_t100"].item()


def fail() -> None:
    raise RuntimeError("a bug")


def interrupt() -> None:
    raise KeyboardInterrupt


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def ended(folder: Path, *callbacks: pl.Callback, **kwargs: Any) -> int:
    """A fit in a process of its own; its exit code."""

    def work() -> None:
        try:
            fit(folder, *callbacks, **kwargs)
        except SIGTERMException:
            os._exit(143)
        except (RuntimeError, SystemExit):
            os._exit(2)

    return in_child(work)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> ADDT:
    return fit(tmp_path_factory.mktemp("straight"), **PARTS)


def saved(folder: Path) -> int:
    """The step of the last checkpoint."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]


def exported(folder: Path) -> bytes:
    return (folder / "weights/unet/diffusion_pytorch_model.safetensors").read_bytes()


def test_a_fit_that_had_only_to_export_exports_its_average(tmp_path: Path) -> None:
    """Ended after its last checkpoint: Lightning, left without a step to do, averages nothing."""
    assert ended(tmp_path / "b", Before("on_fit_end", 1, fail), limit_val_batches=0) == 2
    assert not (tmp_path / "b/weights").exists()
    for folder in (tmp_path / "a", tmp_path / "b"):
        fit(folder, limit_val_batches=0)
    first = exported(tmp_path / "a")
    fit(tmp_path / "a", limit_val_batches=0)  # the same command again
    assert first == exported(tmp_path / "a") == exported(tmp_path / "b")


@pytest.mark.parametrize(
    ("hook", "count", "how", "step"),
    [
        pytest.param("on_train_batch_start", 4, fail, 1, marks=pytest.mark.slow),
        ("on_after_backward", 8, interrupt, 3),
        pytest.param("on_before_optimizer_step", 6, fail, 5, marks=pytest.mark.slow),
    ],
)
def test_a_failure_within_a_step_loses_that_step_only(
    hook: str, count: int, how: Callable[[], None], step: int, straight: ADDT, tmp_path: Path
) -> None:
    """Between two parts, at the end of the second, and when the gradient is complete."""
    assert ended(tmp_path, Before(hook, count, how), **PARTS) == 2
    assert saved(tmp_path) == step
    assert apart(straight, fit(tmp_path, **PARTS)) == 0


def test_a_failure_that_leaves_half_a_step_saves_nothing(straight: ADDT, tmp_path: Path) -> None:
    """The optimizer has stepped; average, schedule and counters have not."""
    assert ended(tmp_path, Before("on_train_batch_end", 10, fail), **PARTS) == 2
    assert saved(tmp_path) == 3
    assert apart(straight, fit(tmp_path, **PARTS)) == 0


@pytest.mark.parametrize("epoch", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_validation_that_was_cut_short_is_done_again(
    epoch: int, straight: ADDT, tmp_path: Path
) -> None:
    """Averaged weights are in place during it: saved as it stands, the live ones would be lost."""
    assert ended(tmp_path, Before("on_validation_batch_start", epoch, fail), **PARTS) == 2
    again = Validated()
    assert apart(straight, fit(tmp_path, again, **PARTS)) == 0
    assert list(again.found) == [3, 6][epoch - 1 :]


@pytest.mark.slow
def test_a_finished_validation_is_not_done_again(straight: ADDT, tmp_path: Path) -> None:
    again = Validated()
    assert ended(tmp_path, Before("on_after_backward", 7, fail), **PARTS) == 2
    assert apart(straight, fit(tmp_path, again, **PARTS)) == 0
    assert list(again.found) == [6]


@pytest.mark.slow
def test_another_checkpoint_callback_saves_no_half_step(straight: ADDT, tmp_path: Path) -> None:
    """By time, between two parts of a batch."""
    timed = ModelCheckpoint(
        tmp_path / "checkpoints",
        train_time_interval=timedelta(),
        filename="last",
        enable_version_counter=False,
    )
    assert (
        ended(tmp_path, timed, Before("on_train_batch_start", 4, send(signal.SIGKILL)), **PARTS)
        == -signal.SIGKILL
    )
    with pytest.warns(UserWarning, match="callbacks used to create the checkpoint"):
        assert apart(straight, fit(tmp_path, **PARTS)) == 0


@pytest.mark.parametrize(
    ("hook", "count", "step"),
    [
        pytest.param("on_train_batch_start", 4, 2, marks=pytest.mark.slow),
        pytest.param("on_before_optimizer_step", 3, 3, marks=pytest.mark.slow),
        ("on_validation_batch_start", 1, 3),
    ],
)
def test_sigterm_ends_a_fit_after_the_step(
    hook: str, count: int, step: int, straight: ADDT, tmp_path: Path
) -> None:
    assert ended(tmp_path, Before(hook, count, send(signal.SIGTERM)), **PARTS) == 143
    assert saved(tmp_path) == step
    assert apart(straight, fit(tmp_path, **PARTS)) == 0


@pytest.mark.parametrize("accepts", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_slurm_warns_and_the_job_is_queued_again(
    accepts: bool, straight: ADDT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning alone would save in the handler: here, within an optimizer step."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\nexit {0 if accepts else 1}\n")
    scontrol.chmod(0o755)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    warn = Before("on_before_optimizer_step", 2, send(signal.SIGUSR1))
    assert ended(tmp_path, warn, **PARTS) == (143 if accepts else 0)
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert saved(tmp_path) == (2 if accepts else 6)
    assert not list(tmp_path.rglob("hpc_ckpt*"))
    if accepts:
        assert apart(straight, fit(tmp_path, **PARTS)) == 0


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_two_processes_end_after_the_same_step_whichever_is_told(rank: int, tmp_path: Path) -> None:
    class Send(pl.Callback):
        def on_before_optimizer_step(self, trainer: pl.Trainer, *args: Any) -> None:
            if (trainer.global_step, trainer.global_rank) == (1, rank):
                os.kill(os.getpid(), signal.SIGTERM)

    def work(place: int, port: int) -> None:
        signal.alarm(100)  # a collective that waits for ever is what is looked for
        os.environ |= {"LOCAL_RANK": str(place), "MASTER_PORT": str(port)}
        os._exit(ended(tmp_path, Send(), devices=2, strategy="ddp", batch_size=4))

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = os.fork()
    if other == 0:
        work(1, port)
    assert in_child(lambda: work(0, port)) == 143
    assert os.waitstatus_to_exitcode(os.waitpid(other, 0)[1]) == 143
    assert saved(tmp_path) == 2
