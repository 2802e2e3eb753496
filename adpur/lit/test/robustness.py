"""One attack block, run for every row of an evaluation."""

from dataclasses import replace
from typing import Any

import lightning.pytorch as pl

from adpur.attacks.attack import Attack
from adpur.defense.gradient import Exact, GradientMode
from adpur.errors import ConfigError
from adpur.judging.records import Described, describe
from adpur.judging.scoreboard import CLEAN
from adpur.judging.threats import UNION
from adpur.judging.trial import Block, Trial, unknowable
from adpur.lit.data.base import Batch
from adpur.lit.test.evaluation import Evaluation
from adpur.threat.knowledge import Knowledge
from adpur.threat.oracle import LevelGradient

DEFAULTS = {
    "gradient": Exact(), "knowledge": Knowledge(), "levels": LevelGradient(), "cosine": 0,
    "source": None,
}  # fmt: skip
"""What a described block means that lacks a setting: what `Robustness` does without it."""


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
        source: the row whose defence the attacker has, purifier and network, in place of the one
            that is judged (transfer); every query and gradient is of that row.
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
        source: str | None = None,
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
        self.source = source
        if source is not None and cosine:
            raise ConfigError(
                f"block {name!r}: cosine compares with the exact gradient of the row attacked, "
                "which an attacker with a source does not have; leave one of them out"
            )
        radii = eps if eps is not None else [attack.eps]
        if not radii:
            raise ConfigError(f"block {name!r}: eps lists no radius; leave it out for the attack's")
        self.attacks = [replace(attack, eps=float(e)) for e in radii]  # type: ignore[type-var]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Declare this block's columns, or say which row it cannot find."""
        module = _evaluation(pl_module)
        named = {*(self.only or ()), *([self.source] if self.source is not None else [])}
        if unknown := named - set(module.rows):
            raise ConfigError(
                f"block {self.name!r}: no row named {', '.join(sorted(unknown))}; "
                f"there is: {', '.join(module.rows)}"
            )
        described = {
            "attacks": self.attacks,
            "gradient": self.gradient,
            "knowledge": self.knowledge,
            "levels": self.levels,
            "cosine": self.cosine,
            "source": self.source,
            "only": self._rows(module),
        }
        told = Described.of(describe(described), DEFAULTS)
        if module.blocks.setdefault(self.name, told) != told:
            raise ConfigError(f"two Robustness blocks are named {self.name!r}; names must differ")
        for row in self._rows(module):
            defense = module.defenses[self._attacked(row)]
            view = self.gradient.view(defense.purifier)
            view.check(defense.networks, defense.networks.shape)
            if unknowable(defense, self.knowledge):
                raise ConfigError(
                    f"block {self.name!r}: row {row!r} draws by itself, and nobody can know that "
                    "noise; use knowledge: adpur.white_box"
                )
            self.levels.check(view)
            trial = Trial(
                defense, self.attacks[0], self.gradient, self.knowledge, self.levels,
                cosine=self.cosine,
            )  # fmt: skip
            block = Block(row, self.name, trial, tuple(attack.eps for attack in self.attacks))
            module.attacks[row, self.name] = block
            for column in (block.clean, *block.columns):
                module.declare(column)

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
            block = module.attacks[row, self.name]
            module.judge(block.clean, batch, knowledge=self.knowledge)
            for column in block.columns:
                trial = block.at(column.eps, module.bench(self._attacked(row), batch[0]).random)
                module.judge(column, batch, trial.search, self.knowledge, trial.attack.norm)

    def _rows(self, module: Evaluation) -> list[str]:
        return self.only if self.only is not None else list(module.rows)

    def _attacked(self, row: str) -> str:
        """The row whose defence the attack queries."""
        return self.source if self.source is not None else row


def _evaluation(module: pl.LightningModule) -> Evaluation:
    if not isinstance(module, Evaluation):
        raise ConfigError(
            "Robustness belongs in the callbacks of a run whose model is adpur.Evaluation"
        )
    return module
