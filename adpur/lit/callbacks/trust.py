"""The trust report of a run: asked before the first image and after the last."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
import torch

from adpur.errors import AttackError
from adpur.metrics.scoreboard import Column
from adpur.noise import Noise
from adpur.trial import Block
from adpur.trust.finding import Case, Check, Grade, Level, Measured, Record
from adpur.trust.report import Findings, probes, read_report, reviews

if TYPE_CHECKING:
    from adpur.lit.evaluation import Evaluation

PROBED = 4
"""Images of a probe: equalities and derivatives need no statistics."""
RETRIED = {Level.QUICK: 16, Level.FULL: 32}
"""Images attacked again."""


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

    def _of(self, module: pl.LightningModule) -> "tuple[Evaluation, Findings]":
        evaluation = cast("Evaluation", module)
        return evaluation, Findings(evaluation.records.folder, self.level)

    def _cases(self, module: "Evaluation", mine: slice, count: int) -> Iterator[tuple[Case, Block]]:
        """This process's share of the attack blocks, with a few images each."""
        for block in list(module.attacks.values())[mine]:
            yield case_of(module, block, count), block

    def _ask(
        self, module: "Evaluation", found: Findings, check: Check, case: Case, answer: Any
    ) -> None:
        module.heed()
        module.tell(f"trust: {check.check} {check.title}, {case.row} / {case.block}")
        start = time.perf_counter()
        measured: Measured = answer()
        found.add(check.found(case, measured), time.perf_counter() - start)


def case_of(module: "Evaluation", block: Block, count: int) -> Case:
    """The first evaluated images under a block at its largest radius."""
    data = module.data
    rows = [data.split(data.evaluate)[i] for i in data.subset[:count]]
    x, y, index = (torch.stack(part).to(module.device) for part in zip(*rows, strict=True))
    bench = module.bench(block.row, x)
    trial = block.at(max(block.radii), bench.random)
    noise = Noise(index, module.seed)
    deployed = module.defenses[block.row]
    return Case(block.row, block.name, trial, deployed, x, y, noise, bench)


def recorded(module: "Evaluation", block: Block) -> Record:
    """What the run recorded of a block on a row."""
    outcomes, eps = module.outcomes, max(block.radii)
    alike = [b for b in module.attacks.values() if b.comparable(block) and b.name != block.name]
    others = {b.name: outcomes[Column(b.row, b.name, eps)] for b in alike if eps in b.radii}
    attacked = {column.eps: outcomes[column] for column in block.columns}
    computed = module.records.computed((block.clean, *block.columns))
    return Record(outcomes[block.clean], attacked, others, computed)
