"""The curve that matters, while training: the accuracy a defence keeps under attack."""

import lightning.pytorch as pl
from torch import Tensor
from torchmetrics import MeanMetric

from adpur.addt.case import borrowed
from adpur.attacks.attack import Attack
from adpur.attacks.pgd import PGD
from adpur.defense.defense import ROWS, Defense
from adpur.defense.gradient import Exact, GradientMode
from adpur.errors import ConfigError
from adpur.judging.judge import Draws, Verdict, judge
from adpur.judging.trial import Examples, Trial
from adpur.keyed.noise import Noise
from adpur.lit.data.base import Batch
from adpur.lit.fit.first import FirstImages
from adpur.lit.fit.training import Training
from adpur.models.networks import Networks
from adpur.purify.base import Identity, Purifier
from adpur.threat.knowledge import Knowledge, replay


class RobustValidation(FirstImages):
    """A quick robust accuracy of the network that is trained, `val/robust_acc`, at validations.

    The one judge of `adpur test` on a small fixed subset under the same keys every time, beside
    `val/clean_acc` of the same defence. The default is randomness replay, PGD-20 with EOT 1: one
    known draw of all noise, so that the curve shows the network and not the luck of a draw. It
    serves comparison within a fit; quote `adpur test`.

    Args:
        purifier: the defence; `adpur.Identity` for a classifier.
        attack: with the eps of the evaluation to come.
        images: the first of the validation images.
        every: attack at each `every`-th validation.
        knowledge: which evaluation noise the attacker knows.
        gradient: the purifier the attacker differentiates.
        networks: what the fit lacks: a classifier for a diffusion fit without one, a diffusion
            model for a classifier behind a purifier. An ADDT fit brings its guide.
        draws: evaluation draws an image; replay has one.
        rows: R; on many processes of few images each, a smaller one wastes less.
    """

    def __init__(
        self,
        purifier: Purifier = Identity(),
        attack: Attack = PGD(steps=20, eot=1),
        images: int = 64,
        every: int = 1,
        knowledge: Knowledge = replay(),
        gradient: GradientMode = Exact(),
        networks: Networks | None = None,
        draws: int = 1,
        rows: int = ROWS,
    ) -> None:
        super().__init__(images, every)
        self.purifier, self.attack, self.knowledge = purifier, attack, knowledge
        self.gradient, self.lent, self.rows = gradient, networks, rows
        self.draws = Draws(draws, select=1)
        self.metrics = {"val/clean_acc": MeanMetric(), "val/robust_acc": MeanMetric()}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse now what could not work at the first validation."""
        if not isinstance(pl_module, Training):
            raise ConfigError("RobustValidation belongs in the callbacks of a fit")
        with borrowed(pl_module, train=False):
            self._defense(pl_module)

    def measure(self, module: Training, batch: Batch, position: Tensor) -> None:
        """Judge the images clean and attacked; the module is lent, and left as it was."""
        with borrowed(module, train=False):
            verdicts = self._judged(module, batch)
        for metric, verdict in zip(self.metrics.values(), verdicts, strict=True):
            metric.to(module.device).update(verdict.correct.float().to(module.device))

    def found(self) -> dict[str, Tensor]:
        """Shares of images and draws."""
        found = {name: metric.compute() for name, metric in self.metrics.items()}
        for metric in self.metrics.values():
            metric.reset()
        return found

    def _judged(self, module: Training, batch: Batch) -> tuple[Verdict, ...]:
        x, y, index = batch
        defense, images = self._defense(module), Examples(x, y, Noise(index, module.seed))
        clean = Trial(defense, knowledge=self.knowledge)
        attacked = Trial(defense, self.attack, self.gradient, self.knowledge)
        return tuple(judge(defense, images, self.draws, trial) for trial in (clean, attacked))

    def _defense(self, module: Training) -> Defense:
        return Defense(self.purifier, module.networks(self.lent), self.rows)
