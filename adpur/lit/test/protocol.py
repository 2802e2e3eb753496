"""`adpur-standard-v1` as a callback: the one line a paper should quote."""

from typing import Any

import lightning.pytorch as pl

from adpur.attacks.attack import differentiates
from adpur.errors import ConfigError
from adpur.judging.protocol import APPROXIMATE, NAME, parts
from adpur.lit.data.base import Batch
from adpur.lit.test.evaluation import Evaluation
from adpur.lit.test.robustness import Robustness
from adpur.purify.base import Identity
from adpur.threat.ball import Linf, Norm


class StandardV1(pl.Callback):
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
        self.blocks: list[Robustness] = []
        self.queries = False
        """Whether only blocks that ask for no gradient can run; it is no number of v1 then."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Declare the blocks; BPDA where there is something to differentiate past."""
        if not isinstance(pl_module, Evaluation):
            raise ConfigError(f"{NAME} belongs in the callbacks of a run of adpur.Evaluation")
        rows = self.only if self.only is not None else list(pl_module.rows)
        bare = {n for n, row in pl_module.rows.items() if isinstance(row.purifier, Identity)}
        purified = [row for row in rows if row not in bare]
        classes = trainer.datamodule.classes  # type: ignore[attr-defined]
        self.blocks = [
            Robustness(name, attack, gradient, only=purified if name == APPROXIMATE else rows)
            for name, (attack, gradient) in parts(self.eps, self.norm, classes).items()
            if (purified or name != APPROXIMATE) and not (self.queries and differentiates(attack))
        ]
        for block in self.blocks:
            block.setup(trainer, pl_module, stage)

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
        for block in self.blocks:
            block.on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)
