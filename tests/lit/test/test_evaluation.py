"""The test stage end to end: real Lightning runs, real kills, real processes."""

import json
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from problems import LinearClassifier, WavyDenoiser, images
from torch import Tensor
from toy import ATTACK, Toy, blocks, evaluation, in_child, killed_after, labels, rows, run, trainer

from adpur import (
    BPDA,
    PGD,
    Attack,
    ConfigError,
    CrossEntropy,
    Evaluation,
    Knowledge,
    Linf,
    Networks,
    Noise,
    Norm,
    Oracle,
    Robustness,
    Row,
    Source,
    Strided,
)
from adpur.judging.scoreboard import Column
from adpur.lit.test.identity import older_prints
from adpur.purify.base import Context

pytestmark = pytest.mark.usefixtures("forks")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    run(folder)
    return folder


def test_every_image_is_in_every_column(straight: Path) -> None:
    entries = [json.loads(line) for line in rows(straight)]
    columns = {(e["row"], e["attack"], e["eps"]) for e in entries}
    assert len(columns) == 3 + 3 * 2 + 2
    for column in columns:
        mine = [e["index"] for e in entries if (e["row"], e["attack"], e["eps"]) == column]
        assert sorted(mine) == list(range(100, 112))


def test_the_null_attack_equals_clean(tmp_path: Path) -> None:
    outcomes = run(tmp_path).outcomes
    for row in ("undefended", "diffpure", "ssni"):
        null, clean = outcomes[Column(row, "pgd", 0.0)], outcomes[Column(row)]
        assert np.array_equal(null.predictions, clean.predictions)
        assert np.array_equal(null.t, clean.t, equal_nan=True)


def test_an_attack_does_something(straight: Path, tmp_path: Path) -> None:
    outcomes = run(tmp_path).outcomes
    clean, attacked = (
        outcomes[Column("undefended", *a)].correct for a in (("clean",), ("pgd", 0.3))
    )
    assert clean.mean() == 1 and attacked.mean() < 0.8


@dataclass(frozen=True)
class Cheat(Attack):
    """Leaves the ball and the range, and hopes to be believed."""

    eps: float = 0.1
    norm: Norm = Linf()

    def run(self, oracle: Oracle, x: Tensor) -> Tensor:
        return 5 * torch.ones_like(x)


def test_an_attack_is_not_trusted(tmp_path: Path) -> None:
    run(tmp_path, callbacks=[Robustness("cheat", Cheat())])
    sizes = [json.loads(r)["size"] for r in rows(tmp_path) if '"cheat"' in r]
    assert len(sizes) == 36 and max(sizes) <= 0.1 + 1e-6


@pytest.mark.parametrize("change", [{"data": Toy(batch_size=12)}, {"data": Toy(batch_size=1)}])
def test_the_loaders_batch_changes_no_bit(change: dict, straight: Path, tmp_path: Path) -> None:
    run(tmp_path, **change)
    assert rows(tmp_path) == rows(straight)


def test_worker_threads_change_no_bit(straight: Path, tmp_path: Path) -> None:
    run(tmp_path, evaluation(workers=3))
    assert rows(tmp_path) == rows(straight)


def test_a_finished_run_is_not_run_again(straight: Path) -> None:
    before = rows(straight)
    outcomes = run(straight, callbacks=blocks()).outcomes
    assert rows(straight) == before
    assert outcomes[Column("ssni", "bpda", 0.3)].correct.shape == (12, 3)


@pytest.mark.parametrize("moment", [2, 17])
def test_a_killed_run_continues_to_the_same_bits(
    moment: int, straight: Path, tmp_path: Path
) -> None:
    def work() -> None:
        killed_after(moment)()
        run(tmp_path)

    assert in_child(work) == -signal.SIGKILL
    assert 0 < len(rows(tmp_path)) < len(rows(straight))
    run(tmp_path)
    whole = [line for line in rows(tmp_path) if line.endswith("}")]
    assert whole == rows(straight)


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(20))
def test_a_run_killed_at_any_time_continues(trial: int, straight: Path, tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        run(tmp_path)
        os._exit(0)
    time.sleep(0.1 + 0.05 * trial)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    run(tmp_path)
    assert [line for line in rows(tmp_path) if line.endswith("}")] == rows(straight)


@pytest.mark.parametrize("size", [12, 7])
def test_two_processes_equal_one(size: int, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run(one, data=Toy(size))
    run(two, data=Toy(size), devices=2, strategy="ddp_fork")
    assert len(list(two.glob("rows-*.jsonl"))) == 2
    assert rows(two) == rows(one)


def test_a_run_killed_on_one_process_continues_on_two(straight: Path, tmp_path: Path) -> None:
    def work() -> None:
        killed_after(9)()
        run(tmp_path)

    in_child(work)
    run(tmp_path, devices=2, strategy="ddp_fork")
    assert [line for line in rows(tmp_path) if line.endswith("}")] == rows(straight)


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(ConfigError, match=r"draws: 3 -> 4"):
        run(tmp_path, evaluation(draws=4))
    with pytest.raises(ConfigError, match=r"attacks\.pgd\.attacks"):
        run(tmp_path, callbacks=[Robustness("pgd", PGD(eps=0.3, steps=3, eot=2)), blocks()[1]])


def test_an_older_block_and_its_fingerprints_are_the_same_run(tmp_path: Path) -> None:
    """A block that lacks a setting has its default; 0.1.0's fingerprints name the networks."""
    module = run(tmp_path)
    file = tmp_path / "manifest.json"
    text = file.read_text()
    for today, before in older_prints(module.defenses).items():
        assert today in text
        text = text.replace(today, before)
    content = json.loads(text)
    block = content["identity"]["attacks"]["bpda"]
    for setting in ("cosine", "source", "levels", "knowledge"):
        del block[setting]
    del block["attacks"][0]["restarts"], content["identity"]["defenses"]["ssni"]["ensemble"]
    file.write_text(json.dumps(content))
    before = rows(tmp_path)
    run(tmp_path)
    assert rows(tmp_path) == before
    other = Robustness("bpda", ATTACK, BPDA(), only=["diffpure", "ssni"], cosine=2)
    with pytest.raises(ConfigError, match=r"attacks\.bpda\.cosine: None -> 2\."):
        run(tmp_path, callbacks=[blocks()[0], other])
    more = Robustness("bpda", replace(ATTACK, restarts=2), BPDA(), only=["diffpure", "ssni"])
    with pytest.raises(ConfigError, match=r"attacks\.bpda\.attacks\.0\.restarts: None -> 2\."):
        run(tmp_path, callbacks=[blocks()[0], more])
    content["identity"]["networks"]["ssni"]["classifier"] = "f" * 64
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"networks\.ssni\.classifier: ffff.* -> v2-"):
        run(tmp_path)


def test_nothing_global_moves(tmp_path: Path) -> None:
    module = evaluation()
    before = torch.random.get_rng_state()
    run(tmp_path, module)
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(p.grad is None for p in module.parameters())


def test_replay_evaluates_the_one_known_draw(tmp_path: Path) -> None:
    module = run(tmp_path, callbacks=[Robustness("replay", ATTACK, knowledge=Knowledge(pool=1))])
    clean = module.outcomes[Column("diffpure", "clean (replay)")]
    assert clean.predictions.shape == (12, 1)
    assert module.outcomes[Column("diffpure", "replay", 0.3)].predictions.shape == (12, 1)
    assert module.outcomes[Column("diffpure")].predictions.shape == (12, 3)


def test_bad_blocks_are_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no row named difpure; there is: undefended, diffpure"):
        run(tmp_path, callbacks=[Robustness("a", ATTACK, only=["difpure"])])
    with pytest.raises(ConfigError, match="two Robustness blocks are named 'a'"):
        run(tmp_path, callbacks=[Robustness("a", ATTACK), Robustness("a", Cheat())])
    with pytest.raises(ConfigError, match="row 'x' wants network 'big'"):
        evaluation(defenses={"x": Row(evaluation().rows["ssni"].purifier, "big")})


class Send(pl.Callback):
    """A signal to this process between the first batch and its attacks."""

    def __init__(self, number: int) -> None:
        self.number = number

    def on_test_batch_end(self, *args: object, **kwargs: object) -> None:
        os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_between_columns_and_keeps_what_is_there(
    number: int, straight: Path, tmp_path: Path
) -> None:
    def work() -> None:
        trainer(tmp_path, [Send(number), *blocks()]).test(evaluation(), Toy(), verbose=False)

    in_child(work)
    entries = [json.loads(r) for r in rows(tmp_path)]
    assert {e["attack"] for e in entries} <= {"clean", "pgd"} and len(entries) >= 15
    assert len(entries) < 30
    run(tmp_path)
    assert rows(tmp_path) == rows(straight)


def test_arithmetic_is_part_of_the_identity(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected precision 32-true, got bf16-mixed"):
        run(tmp_path, precision="bf16-mixed")


def test_other_networks_and_other_images_are_refused(tmp_path: Path) -> None:
    run(tmp_path)

    class Negative(Toy):
        def split(self, name):  # type: ignore[no-untyped-def]
            x, y, index = super().split(name).tensors
            return torch.utils.data.TensorDataset(1 - x, y, index)

    Negative.__name__ = "Toy"
    with pytest.raises(ConfigError, match=r"data\.sha256"):
        run(tmp_path, data=Negative())
    nets = {"default": Networks(LinearClassifier(scale=2.0), WavyDenoiser())}
    with pytest.raises(ConfigError, match=r"networks\.diffpure\.classifier"):
        run(tmp_path, Evaluation(nets, evaluation().rows, draws=3, rows=4))


def test_a_known_pool_is_replayed_to_the_bit_levels_included() -> None:
    """Semi-K: the attack's losses at the clean image are the evaluation's, member by member."""
    defense, x = evaluation().defenses["ssni"], images(6, torch.float32)
    y, noise, knowledge = labels(x), Noise(torch.arange(6)), Knowledge(pool=4)
    oracle = Oracle(defense, defense.purifier, y, noise, knowledge)
    value, _, _ = oracle.per_draw(x, 0, 4)
    with torch.no_grad():
        out = defense(x.repeat(4, 1, 1, 1), knowledge.evaluate(noise, 1))
    want = CrossEntropy().loss(out.logits, y.repeat(4)).view(4, 6)
    assert torch.equal(value, want)
    assert len(oracle.per_draw(x, 0, 10).loss) == 4
    assert oracle.noise.source is Source.ATTACK


def test_score_norms_count_as_calls() -> None:
    out = evaluation().defenses["ssni"](images(6, torch.float32))
    steps = (out.snapped[:, 0] // 20).tolist()
    assert out.nfe.tolist() == [5 + s for s in steps]


def test_a_level_that_is_not_finite_is_no_level() -> None:
    defense = evaluation().defenses["ssni"]
    defense.networks.scorer.var = float("nan")
    with pytest.raises(ConfigError, match="noise level that is not finite"):
        defense(images(6, torch.float32))


def test_a_surrogate_attacks_the_deployed_level() -> None:
    from adpur import Surrogate

    defense, x = evaluation().defenses["diffpure"], images(6, torch.float32)
    noise, seen = Noise(torch.arange(6)), []
    view = Surrogate(Strided(25)).view(defense.purifier)
    levels = defense.levels(x, noise)
    context = Context(defense.networks, 8, tap=lambda s: seen.append(s.t.tolist()))
    deployed = defense.purifier.purify(x, noise, levels, Context(defense.networks, 8)).levels
    out = view.purify(x, noise, levels, context)
    assert torch.equal(out.levels, deployed)
    assert seen == [[60] * 6, [50] * 6, [25] * 6]
