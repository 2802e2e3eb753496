"""One attack block, run for every row of an evaluation."""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

from adpur.attacks.attack import Attack
from adpur.defense.gradient import Exact, GradientMode
from adpur.errors import ConfigError
from adpur.judging.trial import AttackBlock
from adpur.lit.data.base import Batch
from adpur.lit.test.evaluation import AttackCallback, Evaluation
from adpur.lit.test.row import Row
from adpur.threat.knowledge import Knowledge
from adpur.threat.oracle import LevelGradient


class Robustness(AttackCallback):
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
        if eps is not None and not eps:
            raise ConfigError(f"block {name!r}: eps lists no radius; leave it out for the attack's")
        self.block = AttackBlock(
            name, attack, gradient, knowledge, tuple(map(float, eps or ())),
            None if only is None else tuple(only), levels, cosine, source,
        )  # fmt: skip

    def blocks(self, rows: Mapping[str, Row], classes: int) -> list[AttackBlock]:
        """The one."""
        return [self.block]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a run that evaluates nothing."""
        evaluated(pl_module, "Robustness")

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
        module = evaluated(pl_module, "Robustness")
        for column, trial in module.trials(self.block.name, batch[0]):
            module.judge(column, batch, trial)


def evaluated(module: pl.LightningModule, callback: str) -> Evaluation:
    """The module of a run, if it is one that a callback with attack blocks belongs in."""
    if not isinstance(module, Evaluation):
        raise ConfigError(
            f"{callback} belongs in the callbacks of a run whose model is adpur.Evaluation"
        )
    return module
