"""`adpur-standard-v1`: the one line a paper should quote."""

from typing import Any

import lightning.pytorch as pl

from adpur.errors import ConfigError
from adpur.gradient import BPDA, Exact
from adpur.lit.callbacks.robustness import Robustness
from adpur.lit.data.base import Batch
from adpur.lit.evaluation import Evaluation
from adpur.metrics.standard import BLOCKS, NAME
from adpur.purify.base import Identity
from adpur.threat.apgd import APGD
from adpur.threat.ball import Linf, Norm
from adpur.threat.square import Square
from adpur.threat.worst import Suited, rand, standard


class StandardV1(pl.Callback):
    """adpur's default protocol, version 1. Its budgets are part of its name and have no knobs.

    White-box, fresh noise everywhere, every image attacked by every block, in `norm` at `eps`:

    | block | random defences | deterministic ones |
    |---|---|---|
    | v1-exact | APGD-CE and APGD-DLR, 50 steps, EOT 10, exact gradient | AutoAttack's `standard` |
    | v1-bpda | APGD-CE, 50 steps, EOT 10, BPDA; where there is a purifier | the same, one copy |
    | v1-square | Square, 200 steps of 10 draws | Square, 5000 queries |

    The number is the union of the three, chosen image by image on 10 selection draws: mean over
    N >= 20 evaluation draws and at least 512 images, worst-of-N and majority-of-N beside it, the
    same on clean images, and the trust report (`trust: full`); the table says what is missing.

    Args:
        eps: radius in [0, 1] units.
        norm: of the ball.
        only: rows to run; all by default.
    """

    def __init__(
        self, eps: float = 8 / 255, norm: Norm = Linf(), only: list[str] | None = None
    ) -> None:
        self.only = only
        exact = Suited(standard(eps, norm), rand(eps, norm, eot=10, steps=50), eps, norm)
        bpda = APGD(eps=eps, norm=norm, steps=50, eot=10)
        square = Suited(Square(steps=5000), Square(steps=200, draws=10), eps, norm)
        self.everywhere = [
            Robustness(BLOCKS["exact"], exact, Exact(), only=only),
            Robustness(BLOCKS["square"], square, Exact(), only=only),
        ]
        self.purified = Robustness(BLOCKS["bpda"], bpda, BPDA(), only=only)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Declare the blocks; BPDA where there is something to differentiate past."""
        if not isinstance(pl_module, Evaluation):
            raise ConfigError(f"{NAME} belongs in the callbacks of a run of adpur.Evaluation")
        rows = self.only if self.only is not None else list(pl_module.rows)
        known = [row for row in rows if row in pl_module.rows]  # the blocks refuse the others
        self.purified.only = [
            row for row in known if not isinstance(pl_module.rows[row].purifier, Identity)
        ]
        for block in self._blocks():
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
        for block in self._blocks():
            block.on_test_batch_end(trainer, pl_module, outputs, batch, batch_idx, dataloader_idx)

    def _blocks(self) -> list[Robustness]:
        return [*self.everywhere, *([self.purified] if self.purified.only else [])]
