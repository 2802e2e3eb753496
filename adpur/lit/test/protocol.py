"""`adpur-standard-v1` as a callback: the one line a paper should quote."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl

from adpur.attacks.attack import differentiates
from adpur.judging import protocol
from adpur.judging.protocol import APPROXIMATE, EXACT, NAME, SQUARE
from adpur.judging.trial import AttackBlock
from adpur.lit.data.base import Batch
from adpur.lit.test.evaluation import AttackCallback
from adpur.lit.test.robustness import evaluated
from adpur.lit.test.row import Row
from adpur.purify.base import Identity
from adpur.threat.ball import Linf, Norm


class StandardV1(AttackCallback):
    """adpur's default protocol, version 1. Its budgets are part of its name and have no knobs.

    White-box, fresh noise everywhere, every image attacked by every block, in `norm` at `eps`:

    | block | random defences | deterministic ones |
    |---|---|---|
    | v1-exact | APGD-CE and APGD-DLR, 50 steps, EOT 10, exact gradient | AutoAttack's `standard` |
    | v1-bpda | APGD-CE, 50 steps, EOT 10, BPDA; where there is a purifier | the same, one copy |
    | v1-square | Square, 200 steps of 10 draws | Square, 5000 queries |

    Below four classes the margin stands for DLR. The number is the union of the three, chosen image
    by image on the selection draws: mean over N >= 20 evaluation draws and at least 512 images,
    worst-of-N and majority-of-N beside it, the same on clean images, and the trust report
    (`trust: full`); the table prints it, and what is missing.

    Args:
        eps: radius in [0, 1] units.
        norm: of the ball.
        only: rows to run; all by default.
    """

    def __init__(
        self, eps: float = 8 / 255, norm: Norm = Linf(), only: list[str] | None = None
    ) -> None:
        self.eps, self.norm, self.only = eps, norm, only
        self.queries = False
        """Whether only blocks that ask for no gradient can run; it is no number of v1 then."""

    def blocks(self, rows: Mapping[str, Row], classes: int) -> list[AttackBlock]:
        """Three blocks; BPDA only where there is something to differentiate past."""
        chosen = self.only if self.only is not None else list(rows)
        bare = {name for name, row in rows.items() if isinstance(row.purifier, Identity)}
        purified = [row for row in chosen if row not in bare]
        on = {EXACT: chosen, SQUARE: chosen, APPROXIMATE: purified}
        return [
            replace(block, rows=tuple(on[block.name]))
            for block in protocol.blocks(self.eps, self.norm, classes)
            if on[block.name] and not (self.queries and differentiates(block.attack))
        ]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse a run that evaluates nothing."""
        evaluated(pl_module, NAME)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Attack the batch in every block."""
        module = evaluated(pl_module, NAME)
        for block in self.blocks(module.rows, module.data.classes):
            for column, trial in module.trials(block.name, batch[0]):
                module.judge(column, batch, trial)
