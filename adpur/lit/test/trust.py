"""The trust report of a run: asked before the first image and after the last."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import lightning.pytorch as pl
import torch
from torch import Tensor

from adpur.defense.defense import Defense
from adpur.errors import AttackError
from adpur.judging.judge import Draws
from adpur.judging.records import Records
from adpur.judging.scoreboard import Column, Outcome
from adpur.judging.trial import AttackBlock, Examples, Trial
from adpur.keyed.noise import Noise
from adpur.lit.data.base import ImageData
from adpur.trust.finding import Check, Evidence, Grade, Level, Measured, Recorded
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

    @property
    def trainer(self) -> pl.Trainer:
        """Who runs it."""

    def placed(self) -> list[tuple[AttackBlock, str]]:
        """Every attack block on each of its rows."""

    def draws_of(self, row: str, x: Tensor) -> Draws:
        """The draws of a row's images."""

    def trial(self, block: AttackBlock, row: str, eps: float, x: Tensor) -> Trial:
        """A block on a row at a radius."""

    def heed(self) -> None:
        """Stop for SIGTERM now."""


class TrustReport:
    """Asks every check of every attack block and row; processes share the cases.

    Part of `Evaluation(trust=...)`.
    """

    def __init__(self, level: Level) -> None:
        self.level = level

    def probe(self, module: Evaluated) -> None:
        """Probe; whatever fails here stops the run before its hours are spent."""
        if self.level is Level.NONE:
            return
        findings = Findings(module.records.folder, self.level)
        shard, world = module.data.shard, module.trainer.world_size
        mine = slice((shard.number - 1) * world + module.global_rank, None, shard.of * world)
        for seen, _ in self._cases(module, mine, PROBED):
            for check in probes(self.level):
                if not findings.knows(check, seen):
                    self._ask(module, findings, check, seen, lambda c=check, e=seen: c.probe(e))
        module.trainer.strategy.barrier()
        for finding in read_report(findings.folder).findings:
            if finding.grade is Grade.FAIL:
                raise AttackError(
                    f"{finding.check} {finding.title}, {finding.row} / {finding.attack}: "
                    f"{finding.measured}: {finding.means}; {finding.advice}"
                )

    def review(self, module: Evaluated) -> None:
        """Review the records; a shard that others have yet to complete has none."""
        if self.level is Level.NONE or not module.outcomes:
            return
        findings = Findings(module.records.folder, self.level)
        mine = slice(module.global_rank, None, module.trainer.world_size)
        for seen, block in self._cases(module, mine, RETRIED[self.level]):
            record = recorded(module, block, seen.row)
            for check in reviews(self.level):
                if not findings.knows(check, seen):
                    self._ask(
                        module, findings, check, seen,
                        lambda c=check, e=seen, r=record: c.review(e, r),
                    )  # fmt: skip

    def _cases(
        self, module: Evaluated, mine: slice, count: int
    ) -> Iterator[tuple[Evidence, AttackBlock]]:
        """This process's share of the attack blocks on their rows, with a few images each."""
        for block, row in module.placed()[mine]:
            yield evidence(module, block, row, count), block

    def _ask(
        self, module: Evaluated, findings: Findings, check: Check, seen: Evidence, answer: Any
    ) -> None:
        module.heed()
        module.tell(f"trust: {check.check} {check.title}, {seen.row} / {seen.block}")
        start = time.perf_counter()
        measured: Measured = answer()
        findings.add(check.found(seen, measured), time.perf_counter() - start)


def evidence(module: Evaluated, block: AttackBlock, row: str, count: int) -> Evidence:
    """The first evaluated images under a block on a row at its largest radius."""
    data = module.data
    rows = [data.split(data.evaluate)[i] for i in data.subset[:count]]
    x, y, index = (torch.stack(part).to(module.device) for part in zip(*rows, strict=True))
    trial = module.trial(block, row, block.largest, x)
    images = Examples(x, y, Noise(index, module.seed))
    deployed = module.defenses[row]
    return Evidence(row, block.name, trial, deployed, images, module.draws_of(row, x))


def recorded(module: Evaluated, block: AttackBlock, row: str) -> Recorded:
    """What the run recorded of a block on a row."""
    outcomes, eps = module.outcomes, block.largest
    on_row = [other for other, its in module.placed() if its == row and other.name != block.name]
    alike = [other for other in on_row if other.comparable(block)]
    others = {b.name: outcomes[Column(row, b.name, eps)] for b in alike if eps in b.radii}
    attacked = {column.eps: outcomes[column] for column in block.columns(row)}
    computed = module.records.computed((block.clean(row), *block.columns(row)))
    return Recorded(outcomes[block.clean(row)], attacked, others, computed)
