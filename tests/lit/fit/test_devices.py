"""One fit on one process, on two, and in parts of a batch: the same weights."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hardening import TWO, Few, apart, fit
from torch.multiprocessing import ProcessExitedException
from toy import in_child

from adpur import ADDT, ConfigError, LastCheckpoint

pytestmark = pytest.mark.usefixtures("forks")

EXACT = {"precision": "64-true", "dropout": 0.0}


class Kept(pl.Callback):
    """Each process's own weights at the end of a fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        torch.save(pl_module.state_dict(), self.folder / f"{trainer.global_rank}.pt")


class Kill(pl.Callback):
    """`kill -9` of one process, in the middle of a step."""

    def __init__(self, step: int, rank: int) -> None:
        self.step, self.rank = step, rank

    def on_before_zero_grad(self, trainer: pl.Trainer, *args: Any) -> None:
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank):
            os.kill(os.getpid(), signal.SIGKILL)


class Masks(pl.Callback):
    """What the first dropout layer kept, in the last call of each batch."""

    def __init__(self) -> None:
        self.found: list[torch.Tensor] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        layer = next(m for m in pl_module.modules() if isinstance(m, torch.nn.Dropout))
        layer.register_forward_hook(lambda module, inputs, out: setattr(self, "last", out == 0))

    def on_train_batch_end(self, *args: Any) -> None:
        self.found.append(self.last)


class Gradients(pl.Callback):
    """Each step's gradient."""

    def __init__(self) -> None:
        self.found: list[torch.Tensor] = []

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        grads = [p.grad.flatten() for p in pl_module.parameters() if p.grad is not None]
        self.found.append(torch.cat(grads))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> ADDT:
    return fit(tmp_path_factory.mktemp("whole"), **EXACT)


def test_two_processes_make_the_weights_of_one(whole: ADDT, tmp_path: Path) -> None:
    """ADDT's released EDM trainer averages nothing: its replicas drift apart."""
    fit(tmp_path, Kept(tmp_path), **EXACT | TWO)
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, weight in whole.named_parameters():
        assert (weight - ranks[0][name]).abs().max() < 1e-10
        assert torch.equal(ranks[0][name], ranks[1][name])


def test_accumulated_parts_make_the_larger_batch(whole: ADDT, tmp_path: Path) -> None:
    parts = fit(tmp_path, batch_size=4, accumulate_grad_batches=2, **EXACT)
    assert apart(whole, parts) < 1e-10


def test_an_epochs_only_step_of_three_parts_instead_of_four_is_their_mean(tmp_path: Path) -> None:
    """Lightning would divide by four: 24 images in three batches of eight."""
    whole, parts, one = Gradients(), Gradients(), EXACT | {"max_epochs": 1}
    fit(tmp_path / "whole", whole, batch_size=24, **one)
    fit(tmp_path / "parts", parts, accumulate_grad_batches=4, **one)
    assert torch.allclose(*whole.found, *parts.found, rtol=1e-10, atol=1e-14)


def test_a_step_has_a_mask_for_each_part(tmp_path: Path) -> None:
    masks = Masks()
    fit(tmp_path, masks, batch_size=4, accumulate_grad_batches=2, max_epochs=1)
    assert len(masks.found) == 6
    assert all(
        not torch.equal(a, b) for i, a in enumerate(masks.found) for b in masks.found[i + 1 :]
    )


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_processes_of_which_one_is_killed_resume_to_the_same_bits(
    accumulate: int, tmp_path: Path
) -> None:
    """With dropout, whose masks differ between processes; killed within the fourth step."""
    kept = LastCheckpoint(minutes=0)
    more = TWO | {"accumulate_grad_batches": accumulate, "batch_size": 4 // accumulate}
    straight = fit(tmp_path / "straight", **more)
    with pytest.raises(ProcessExitedException):
        fit(tmp_path / "killed", kept, Kill(4, rank=1), **more)
    assert not (tmp_path / "killed" / "weights").exists()
    assert apart(straight, fit(tmp_path / "killed", **more)) == 0


def begun(folder: Path, step: int, **kwargs: Any) -> None:
    """A fit that is killed within a step, its last state saved after the step before."""
    callbacks = LastCheckpoint(minutes=0), Kill(step, rank=0)
    if "devices" in kwargs:
        with pytest.raises(ProcessExitedException):
            fit(folder, *callbacks, **kwargs)
    else:
        assert in_child(lambda: fit(folder, *callbacks, **kwargs)) == -signal.SIGKILL


@pytest.mark.parametrize(("before", "after"), [({}, TWO), (TWO, {})], ids=["1 to 2", "2 to 1"])
def test_another_number_of_processes_keeps_the_images_of_a_step(
    before: dict[str, Any], after: dict[str, Any], whole: ADDT, tmp_path: Path
) -> None:
    """`batch_size` is what the first command said, which is what a person repeats."""
    size = {"batch_size": (before or {"batch_size": 8})["batch_size"]}
    begun(tmp_path, 4, **EXACT | before)
    fit(tmp_path, Kept(tmp_path), **EXACT | after | size)
    found = torch.load(tmp_path / "0.pt", weights_only=True)
    assert all((p - found[name]).abs().max() < 1e-10 for name, p in whole.named_parameters())


@pytest.mark.parametrize(
    ("state", "world", "size"),
    [
        ({"epoch": 0, "given": 0}, 2, 8),  # of adpur 0.1.0
        ({"epoch": 0, "given": 0, "images": 12}, 1, 12),
        ({"epoch": 0, "given": 0, "images": 12}, 3, 4),
        ({"epoch": 0, "given": 0, "images": 12}, 5, None),
    ],
)
def test_a_share_of_a_step(state: dict[str, int], world: int, size: int | None) -> None:
    data = Few(batch_size=8)
    data.trainer = SimpleNamespace(global_rank=0, world_size=world)  # type: ignore[assignment]
    data.load_state_dict(state)
    if size is None:
        with pytest.raises(ConfigError, match=r"began with 12 images a batch .* got 5;"):
            data.train_dataloader()
    else:
        assert data.train_dataloader().batch_size == size
