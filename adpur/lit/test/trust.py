"""The trust report of a run: asked before the first image and after the last."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import lightning.pytorch as pl
import torch
from torch import Tensor

from adpur.defense.defense import Defense
from adpur.errors import AttackError
from adpur.judging.judge import Bench
from adpur.judging.records import Records
from adpur.judging.scoreboard import Column, Outcome
from adpur.judging.trial import Block
from adpur.keyed.noise import Noise
from adpur.lit.data.base import ImageData
from adpur.trust.finding import Case, Check, Grade, Level, Measured, Record
from adpur.trust.report import Findings, probes, read_report, reviews

PROBED = 4
"""Images of a probe: equalities and derivatives need no statistics."""
RETRIED = {Level.QUICK: 16, Level.FULL: 32}
"""Images attacked again."""


class Evaluated(Protocol):
    """What the report asks of `Evaluation`, which adds it and is therefore not imported here."""

    seed: int
    records: Records
    defenses: dict[str, Defense]
    attacks: dict[tuple[str, str], Block]
    outcomes: dict[Column, Outcome]
    tell: Callable[[str], None]

    @property
    def data(self) -> ImageData:
        """The run's data module."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def global_rank(self) -> int:
        """Which process this is."""

    def bench(self, row: str, like: Tensor) -> Bench:
        """How a row's images are judged."""

    def heed(self) -> None:
        """Stop for SIGTERM now."""


class TrustReport(pl.Callback):
    """Asks every check of every attack block and row; processes share the cases.

    Added by `Evaluation(trust=...)`.
    """

    def __init__(self, level: Level) -> None:
        self.level = level

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Probe; whatever fails here stops the run before its hours are spent."""
        module, found = self._of(pl_module)
        shard, world = module.data.shard, trainer.world_size
        mine = slice((shard.number - 1) * world + module.global_rank, None, shard.of * world)
        for case, _ in self._cases(module, mine, PROBED):
            for check in probes(self.level):
                if not found.knows(check, case):
                    self._ask(module, found, check, case, lambda c=check, k=case: c.probe(k))
        trainer.strategy.barrier()
        for finding in read_report(found.folder).findings:
            if finding.grade is Grade.FAIL:
                raise AttackError(
                    f"{finding.check} {finding.title}, {finding.row} / {finding.attack}: "
                    f"{finding.measured}: {finding.means}; {finding.advice}"
                )

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Review the records; a shard that others have yet to complete has none."""
        module, found = self._of(pl_module)
        if not module.outcomes:
            return
        mine = slice(module.global_rank, None, trainer.world_size)
        for case, block in self._cases(module, mine, RETRIED[self.level]):
            record = recorded(module, block)
            for check in reviews(self.level):
                if not found.knows(check, case):
                    self._ask(
                        module, found, check, case,
                        lambda c=check, k=case, r=record: c.review(k, r),
                    )  # fmt: skip

    def _of(self, module: pl.LightningModule) -> tuple[Evaluated, Findings]:
        evaluation = cast("Evaluated", module)
        return evaluation, Findings(evaluation.records.folder, self.level)

    def _cases(self, module: Evaluated, mine: slice, count: int) -> Iterator[tuple[Case, Block]]:
        """This process's share of the attack blocks, with a few images each."""
        for block in list(module.attacks.values())[mine]:
            yield case_of(module, block, count), block

    def _ask(
        self, module: Evaluated, found: Findings, check: Check, case: Case, answer: Any
    ) -> None:
        module.heed()
        module.tell(f"trust: {check.check} {check.title}, {case.row} / {case.block}")
        start = time.perf_counter()
        measured: Measured = answer()
        found.add(check.found(case, measured), time.perf_counter() - start)


def case_of(module: Evaluated, block: Block, count: int) -> Case:
    """The first evaluated images under a block at its largest radius."""
    data = module.data
    rows = [data.split(data.evaluate)[i] for i in data.subset[:count]]
    x, y, index = (torch.stack(part).to(module.device) for part in zip(*rows, strict=True))
    bench = module.bench(block.row, x)
    trial = block.at(max(block.radii), bench.random)
    noise = Noise(index, module.seed)
    deployed = module.defenses[block.row]
    return Case(block.row, block.name, trial, deployed, x, y, noise, bench)


def recorded(module: Evaluated, block: Block) -> Record:
    """What the run recorded of a block on a row."""
    outcomes, eps = module.outcomes, max(block.radii)
    alike = [b for b in module.attacks.values() if b.comparable(block) and b.name != block.name]
    others = {b.name: outcomes[Column(b.row, b.name, eps)] for b in alike if eps in b.radii}
    attacked = {column.eps: outcomes[column] for column in block.columns}
    computed = module.records.computed((block.clean, *block.columns))
    return Record(outcomes[block.clean], attacked, others, computed)
