"""One attack block, run for every row of an evaluation."""

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from adpur.errors import ConfigError
from adpur.gradient import Exact, GradientMode
from adpur.judge import Found
from adpur.lit.data.base import Batch
from adpur.lit.evaluation import Evaluation
from adpur.metrics.scoreboard import CLEAN, Column
from adpur.metrics.threats import UNION
from adpur.noise import Noise
from adpur.records import describe
from adpur.threat.attack import Attack
from adpur.threat.knowledge import Knowledge
from adpur.threat.oracle import LevelGradient, Oracle, gradient_cosine
from adpur.threat.trace import Trace


class Robustness(pl.Callback):
    """Robust accuracy under one attack, one way of differentiating and one state of knowledge.

    Every image is attacked, correct or not; the result is judged by `Evaluation`.

    Args:
        name: of the block, as it stands in the table.
        attack: the search.
        gradient: the purifier the attacker differentiates.
        knowledge: which evaluation noise the attacker knows.
        eps: radii to run, in place of the attack's own.
        only: rows to run; all by default.
        levels: how the attack treats a computed t(x).
        cosine: draws over which to compare the block's gradient with the exact one at the clean
            images, and report the cosine; 0 does not.
    """

    def __init__(
        self,
        name: str,
        attack: Attack,
        gradient: GradientMode = Exact(),
        knowledge: Knowledge = Knowledge(),
        eps: list[float] | None = None,
        only: list[str] | None = None,
        levels: LevelGradient = LevelGradient(),
        cosine: int = 0,
    ) -> None:
        if name.startswith((CLEAN, UNION)):
            raise ConfigError(
                f"a Robustness block cannot be named {name!r}: {CLEAN} and {UNION} are columns of "
                "their own"
            )
        self.name = name
        self.gradient = gradient
        self.knowledge = knowledge
        self.only = only
        self.levels = levels
        self.cosine = cosine
        radii = eps if eps is not None else [attack.eps]
        self.attacks = [replace(attack, eps=float(e)) for e in radii]  # type: ignore[type-var]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Declare this block's columns, or say which row it cannot find."""
        module = _evaluation(pl_module)
        if unknown := set(self.only or ()) - set(module.rows):
            raise ConfigError(
                f"block {self.name!r}: no row named {', '.join(sorted(unknown))}; "
                f"there is: {', '.join(module.rows)}"
            )
        block = {
            "attacks": self.attacks,
            "gradient": self.gradient,
            "knowledge": self.knowledge,
            "levels": self.levels,
            "cosine": self.cosine,
            "only": self._rows(module),
        }
        if module.blocks.setdefault(self.name, describe(block)) != describe(block):
            raise ConfigError(f"two Robustness blocks are named {self.name!r}; names must differ")
        for row in self._rows(module):
            defense = module.defenses[row]
            view = self.gradient.view(defense.purifier)
            view.check(defense.networks, defense.networks.shape)
            self.levels.check(view)
            if self.knowledge.pool is not None:
                module.declare(self._clean(row))
            for attack in self.attacks:
                module.declare(Column(row, self.name, attack.eps))

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Attack the batch in every row at every radius."""
        module = _evaluation(pl_module)
        for row in self._rows(module):
            if self.knowledge.pool is not None:
                module.judge(self._clean(row), batch, knowledge=self.knowledge)
            for attack in self.attacks:
                self._attack(module, Column(row, self.name, attack.eps), attack, batch)

    def _attack(self, module: Evaluation, column: Column, attack: Attack, batch: Batch) -> None:
        defense = module.defenses[column.row]
        view = self.gradient.view(defense.purifier)
        random = module.bench(column.row, batch[0]).random or view != defense.purifier

        def search(x: Tensor, y: Tensor, noise: Noise, known: Knowledge, trace: Trace) -> Found:
            oracle = Oracle(defense, view, y, noise, known, levels=self.levels, random=random)
            cosine = gradient_cosine(oracle, x, self.cosine) if self.cosine else None
            return Found(attack.run(replace(oracle, trace=trace), x), cosine)

        module.judge(column, batch, search, self.knowledge, attack.norm)

    def _rows(self, module: Evaluation) -> list[str]:
        return self.only if self.only is not None else list(module.rows)

    def _clean(self, row: str) -> Column:
        return Column(row, f"{CLEAN} ({self.name})")


def _evaluation(module: pl.LightningModule) -> Evaluation:
    if not isinstance(module, Evaluation):
        raise ConfigError(
            "Robustness belongs in the callbacks of a run whose model is adpur.Evaluation"
        )
    return module
