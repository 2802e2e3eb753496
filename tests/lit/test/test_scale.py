"""Shares of an evaluation: whole batches, shards, stored images, cost estimates."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import ProcessExitedException
from toy import Toy, evaluation, in_child, killed_after, rows, run, trainer

from adpur import ConfigError, Square
from adpur.judging.records import Records
from adpur.judging.scoreboard import Column
from adpur.judging.trial import Trial
from adpur.lit.data.share import Shard, WholeBatches, batch_count
from adpur.lit.test.estimate import Estimate, asked, counted

pytestmark = pytest.mark.usefixtures("forks")

ATTACKED = Column("ssni", "pgd", 0.3)


def shard(text: str, **kwargs: int) -> Toy:
    data = Toy(**kwargs)
    data.shard = Shard.parse(text)
    return data


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    run(folder, evaluation(store=True))
    return folder


@pytest.mark.parametrize("of", [1, 2, 3, 7])
@pytest.mark.parametrize("world", [1, 2, 5])
def test_batches_are_whole_and_every_image_is_in_one(of: int, world: int) -> None:
    data = range(23)
    batches = []
    for k in range(of):
        for rank in range(world):
            mine = list(WholeBatches(data, 4, Shard(k + 1, of), rank, world))
            batches += [mine[i : i + 4] for i in range(0, len(mine), 4)]
    assert sorted(batches) == [list(data[i : i + 4]) for i in range(0, 23, 4)]
    assert batch_count(23, 4) == 6


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="shard: expected k/n"):
        Shard.parse(text)


def test_shards_at_once_make_the_same_lines_as_one_run(straight: Path, tmp_path: Path) -> None:
    """Three shards of three batches claim one folder at the same moment; one has two ranks."""
    pids = []
    for k in (1, 2, 3):
        if (pid := os.fork()) == 0:
            torch.set_num_threads(1)
            module = run(tmp_path, evaluation(store=True), shard(f"{k}/3"))
            os._exit(0 if len(module.records.finished(module.columns)) >= 2 else 1)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0, 0]
    assert rows(tmp_path) == rows(straight)
    assert len(list(tmp_path.glob("manifest*"))) == 1
    again = run(tmp_path, evaluation(store=True))
    assert rows(tmp_path) == rows(straight) and len(again.outcomes) == len(again.columns)


def test_a_shard_leaves_the_rest_to_others(straight: Path, tmp_path: Path) -> None:
    first = run(tmp_path, data=shard("1/2", batch_size=2))
    assert len(first.records.finished(first.columns)) == 6 and not first.outcomes
    two = {"devices": 2, "strategy": "ddp_fork"}
    run(tmp_path, data=shard("2/3", batch_size=2), **two)  # another number goes on
    last = run(tmp_path, data=shard("4/4", batch_size=1))
    assert not last.outcomes
    assert run(tmp_path, data=shard("1/1")).outcomes
    assert rows(tmp_path) == rows(straight)


def test_of_two_that_claim_at_once_one_wins(tmp_path: Path) -> None:
    Records(tmp_path).claim({"seed": 1}, [ATTACKED], shared=True)
    Records(tmp_path).claim({"seed": 1}, [ATTACKED], shared=True)
    with pytest.raises(ConfigError, match="seed: 1 -> 2"):
        Records(tmp_path).claim({"seed": 2}, [ATTACKED], shared=True)


def test_more_processes_than_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shard("2/2", batch_size=5)  # one batch of three
    monkeypatch.setattr(Toy, "_place", (0, 2))
    with pytest.raises(ConfigError, match=r"each of 2 processes, got 1; take data\.batch_size=3"):
        data.test_dataloader()
    assert len(shard("2/2", batch_size=3).test_dataloader()) == 1


def test_stored_images_are_those_that_were_scored(straight: Path, tmp_path: Path) -> None:
    records = Records(straight)
    records.read()
    found = records.adversarial(ATTACKED)
    assert found["index"].tolist() == list(range(100, 112))
    assert found["adversarial"].dtype == torch.float32
    clean, labels, _ = Toy().stacked("test")
    assert torch.equal(found["label"], labels)
    for k, size in enumerate((found["adversarial"] - clean).abs().flatten(1).amax(1).tolist()):
        assert size == records.scores[ATTACKED][100 + k].size > 0
    assert records.adversarial(Column("ssni")) == {}
    kept = records.gallery(ATTACKED)
    assert torch.equal(kept["adversarial"], found["adversarial"][: len(kept["index"])])


def test_a_finished_run_is_attacked_again_for_its_images(straight: Path, tmp_path: Path) -> None:
    run(tmp_path)
    before = rows(tmp_path)
    assert not Records(tmp_path).adversarial(ATTACKED)
    run(tmp_path, evaluation(store=True))
    assert set(rows(tmp_path)) == set(before)
    same_images(tmp_path, straight)


def same_images(one: Path, other: Path) -> None:
    for column in (ATTACKED, Column("diffpure", "bpda", 0.3), Column("undefended", "pgd", 0.0)):
        a, b = Records(one).adversarial(column), Records(other).adversarial(column)
        assert a and all(torch.equal(a[k], b[k]) for k in b)


def killed(kill: int, folder: Path, data: Toy) -> None:
    """One process, ended by `kill -9` in the middle of its n-th record."""

    def work() -> None:
        killed_after(kill)()
        run(folder, evaluation(store=True), data)

    assert in_child(work) == -signal.SIGKILL


def killed_of_two(kill: int, folder: Path, data: Toy) -> None:
    """Two processes; the first to reach its n-th record dies, and the other ends by itself."""
    plain, start = Records._append, time.monotonic()
    killed_after(kill)()
    try:
        with pytest.raises(ProcessExitedException):
            run(folder, evaluation(store=True), data, devices=2, strategy="ddp_fork")
    finally:
        Records._append = plain  # type: ignore[method-assign]
    assert time.monotonic() - start < 60


def continued(folder: Path, straight: Path) -> None:
    """Finished as another number of shards, to the same bits."""
    assert 0 < len(rows(folder)) < len(rows(straight))
    for k in (3, 1, 2):
        run(folder, evaluation(store=True), shard(f"{k}/3"))
    assert {line for line in rows(folder) if line.endswith("}")} == set(rows(straight))
    same_images(folder, straight)


def test_a_killed_shard_continues(straight: Path, tmp_path: Path) -> None:
    killed(4, tmp_path, shard("1/2", batch_size=2))
    continued(tmp_path, straight)


def test_a_process_killed_of_two_ends_the_other(straight: Path, tmp_path: Path) -> None:
    killed_of_two(3, tmp_path, shard("1/1", batch_size=2))
    continued(tmp_path, straight)


@pytest.mark.slow
@pytest.mark.parametrize("kill", range(1, 20, 2))
@pytest.mark.parametrize("kind", [killed, killed_of_two])
def test_a_killed_shard_continues_wherever_it_was(
    kill: int, kind: Callable[[int, Path, Toy], None], straight: Path, tmp_path: Path
) -> None:
    kind(kill, tmp_path, shard("1/2", batch_size=1))
    continued(tmp_path, straight)


def test_a_dry_run_counts_what_a_run_calls_and_writes_nothing(tmp_path: Path) -> None:
    data, module = Toy(size=16, batch_size=8), evaluation(workers=1)
    found = dict(Estimate(trainer(tmp_path), module, data).columns())
    assert found.keys() == set(module.columns) and not list(tmp_path.iterdir())
    module = evaluation(workers=1)
    networks = module.defenses["diffpure"].networks
    with counted(networks) as calls:
        run(tmp_path, module, data)
    for kind in ("diffusion", "classifier"):
        expected = sum(getattr(cost, kind) for cost in found.values())
        assert expected == pytest.approx(calls[kind], rel=0.1)
    assert all(cost.seconds > 0 for cost in found.values())


def test_a_dry_run_assumes_an_image_that_resists_to_the_end() -> None:
    defense = evaluation().defenses["diffpure"]
    assert asked(Trial(defense, Square(steps=40), random=False), Toy()).predictions == 40
