"""`adpur test --dry-run`: what an evaluation will cost, from a few measured queries."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from adpur.defense.defense import Defense
from adpur.judging.judge import CHECKED
from adpur.judging.records import describe, digest
from adpur.judging.scoreboard import Column
from adpur.judging.trial import AttackBlock, Trial
from adpur.keyed.noise import Noise
from adpur.keyed.rows import calls_everywhere
from adpur.lit.cores import idle_cores, peak_memory
from adpur.lit.data.base import Batch, ImageData
from adpur.lit.test.evaluation import Evaluation
from adpur.lit.test.row import check_rows
from adpur.models.networks import Networks
from adpur.purify.base import Identity
from adpur.purify.still import Still
from adpur.threat.knowledge import Knowledge
from adpur.threat.oracle import LevelGradient
from adpur.threat.trace import Trace

QUICK = 2.0
"""Seconds under which a measurement is taken three times, and the median kept."""


@dataclass(frozen=True)
class Cost:
    """Network calls of R rows, and seconds."""

    diffusion: float = 0.0
    classifier: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.diffusion + other.diffusion,
            self.classifier + other.classifier,
            self.seconds + other.seconds,
        )

    def times(self, factor: float) -> "Cost":
        """So many of it."""
        return Cost(self.diffusion * factor, self.classifier * factor, self.seconds * factor)


@dataclass(frozen=True)
class Asked:
    """What an attack asks of a defence for one image: rows differentiated and rows predicted,
    and how many of the former make one gradient.
    """

    gradients: int
    predictions: int
    copies: int

    def times(self, seeds: int) -> "Asked":
        """Of so many pools, each attacked on its own."""
        return replace(self, gradients=self.gradients * seeds, predictions=self.predictions * seeds)


class Free(nn.Module):
    """A linear classifier that costs nothing, and answers 0 whatever an attack does in [0, 1].

    Its first logit is 3 ahead; weights add less than 1 to any. Its gradient is never zero.
    """

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        pixels = shape[0] * shape[1] * shape[2]
        weight = torch.arange(pixels * classes, dtype=torch.float32).cos()  # nobody's random state
        self.register_buffer("weight", weight.view(pixels, classes) / pixels)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        logits = x.flatten(1) @ self.get_buffer("weight")
        return torch.cat((logits[:, :1] + 3, logits[:, 1:]), 1)


def asked(trial: Trial, data: ImageData) -> Asked:
    """Run the attack in full on one image that resists, against a classifier that costs nothing."""
    networks = Networks(Free(data.shape, data.classes))
    free = Defense(Identity(), networks, rows=1, ensemble=trial.defense.ensemble)
    x, first, trace = torch.full((1, *data.shape), 0.5), torch.zeros(1, dtype=torch.int64), Trace(1)
    seen = trial.oracle(first, Noise(first), trial.knowledge.each()[0])
    oracle = replace(seen, defense=free, view=Still(), levels=LevelGradient(), trace=trace)
    trial.attack.run(oracle, x)
    copies = trace.gradients[0] // max(1, len(trace.loss[0]))
    return Asked(trace.gradients[0], trace.values[0], copies).times(trial.knowledge.seeds)


class Estimate:
    """Measures every column of an evaluation on the first batch; writes nothing."""

    def __init__(self, trainer: pl.Trainer, model: Evaluation, data: ImageData) -> None:
        self.model, self.data, self.device = model, data, trainer.strategy.root_device
        model.to(self.device)
        model.read_blocks(trainer.callbacks, data.classes)  # type: ignore[attr-defined]
        check_rows(model.defenses, model.placed(), data, self.device)
        for defense in model.defenses.values():
            defense.workers = model.workers or idle_cores(trainer)
        self._asked: dict[str, Asked] = {}
        self.x, self.y, index = self._batch()
        self.noise = Noise(index, model.seed)

    def columns(self) -> Iterator[tuple[Column, Cost]]:
        """What each column will cost for all images, as soon as it is measured."""
        placed = self.model.placed()
        blocks = {column: block for block, row in placed for column in block.columns(row)}
        pooled = {block.clean(row): block.knowledge for block, row in placed}
        for column in self.model.columns:
            if column in blocks:
                once = self._attacked(column, blocks[column])
            else:
                once = self._judged(column.row, self.x, pooled.get(column, Knowledge()))
            yield column, once.times(len(self.data.subset))

    def _attacked(self, column: Column, block: AttackBlock) -> Cost:
        """One image of a column: its attack, and its evaluation at an attacked image."""
        trial = self.model.trial(block, column.row, column.eps, self.x)
        found, x, total = self._asked_by(trial), self.x, Cost()
        norm, eps = trial.attack.norm, trial.attack.eps
        if found.gradients:
            oracle = trial.oracle(self.y, self.noise, trial.knowledge.each()[0])
            _, grad = oracle.value_and_grad(x, 0, found.copies)
            x = norm.ascent(x, grad, eps)  # where t(x) is what it will be
            query = self._measured(trial.defense, lambda: oracle.value_and_grad(x, 1, found.copies))
            rows = len(x) * found.copies
            total += query.times((found.gradients + 2 * trial.cosine) / rows)
        if found.predictions:
            total += self._predicted(trial.defense, x, found.predictions)
        return total + self._judged(column.row, x, trial.knowledge)

    def _asked_by(self, trial: Trial) -> Asked:
        """As `asked`, once for all rows that one attack treats alike: it may take a minute."""
        told = [trial.attack, trial.knowledge, trial.gradient, trial.random, trial.defense.ensemble]
        key = digest(describe(told))
        if key not in self._asked:
            self._asked[key] = asked(trial, self.data)
        return self._asked[key]

    def _judged(self, row: str, x: Tensor, knowledge: Knowledge) -> Cost:
        """The evaluation and selection draws of one image."""
        wanted, known = self.model.draws_of(row, x), knowledge.each()[0]
        draws = known.draws(wanted.evaluate)
        once = draws + wanted.select if wanted.random else min(CHECKED, draws) + 1
        return self._predicted(self.model.defenses[row], x, once * knowledge.seeds)

    def _predicted(self, row: Defense, x: Tensor, wanted: int) -> Cost:
        """So many draws of one image, from as many as keep every worker busy."""
        draws = min(wanted, max(1, -(-4 * row.rows * row.workers // len(x))))
        keys = Knowledge().evaluate(self.noise, draws)

        @torch.no_grad()
        def predict() -> None:
            row(x.repeat(draws, 1, 1, 1), keys)

        return self._measured(row, predict).times(wanted / (draws * len(x)))

    def _measured(self, row: Defense, work: Callable[[], object]) -> Cost:
        work()  # the first use of a shape is slower
        costs: list[Cost] = []
        while len(costs) < 3 and sum(c.seconds for c in costs) < QUICK:
            with counted(row.networks) as calls:
                start = time.perf_counter()
                work()
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
            costs.append(Cost(**calls, seconds=time.perf_counter() - start))
        return Cost(**calls, seconds=statistics.median(c.seconds for c in costs))

    def _batch(self) -> Batch:
        split, chosen = self.data.split(self.data.evaluate), self.data.subset
        parts = zip(*(split[i] for i in chosen[: self.data.batch_size]), strict=True)
        x, y, index = (torch.stack(part).to(self.device) for part in parts)
        return x, y, index


def estimate(trainer: pl.Trainer, model: Evaluation, data: ImageData, jobs: int) -> Iterator[str]:
    """Lines: calls and seconds of each column and in all, memory, and what they rest on."""
    found, total, images = Estimate(trainer, model, data), Cost(), len(data.subset)
    rows = next(iter(model.defenses.values())).rows
    yield (
        f"{images} images, {len(model.rows)} rows, {len(model.columns)} columns; "
        f"network calls of {rows} rows"
    )
    yield f"{'column':40} {'diffusion calls':>16} {'classifier calls':>17} {'seconds':>9}"
    for column, cost in found.columns():
        total += cost
        yield _line(str(column), cost)
    yield _line("all", total)
    jobs *= trainer.world_size
    if jobs > 1:
        yield f"on {jobs} processes of equal speed: {total.seconds / jobs:.0f} s each"
    yield f"memory: {peak_memory(found.device) / 2**30:.2f} GiB, the most while measuring"
    yield (
        f"An estimate: in each column one gradient and one prediction were measured on "
        f"{len(found.x)} images, and multiplied by the rows the attack asked of a linear "
        "classifier that it cannot fool: where broken images are finished, at most this. The trust "
        "report comes on top. Nothing was written."
    )


@contextmanager
def counted(networks: Networks) -> Iterator[dict[str, int]]:
    """How often the networks are called inside, whichever thread calls; recomputation counts."""
    asked: list[None] = []
    calls: dict[str, int] = {}
    before = calls_everywhere()
    hook = networks.classifier.register_forward_pre_hook(lambda *_: asked.append(None))
    try:
        yield calls
    finally:
        hook.remove()
    calls |= {"diffusion": calls_everywhere() - before, "classifier": len(asked)}


def _line(name: str, cost: Cost) -> str:
    return f"{name:40} {cost.diffusion:16,.0f} {cost.classifier:17,.0f} {cost.seconds:9,.0f}"
