"""ADDT as a fit stage."""

from typing import Any

from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torchmetrics import MeanMetric

from adpur.addt.case import Case
from adpur.addt.objective import DenoisingLoss, EpsMSE
from adpur.addt.perturbation import Mixture, Perturbation, searched
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.lit.data.base import Batch
from adpur.lit.fit.diffusion import DenoiserTraining
from adpur.lit.fit.training import Annealing, Lent
from adpur.models.networks import Networks
from adpur.types import to_signed

QUARTERS = 4


class ADDT(DenoiserTraining):
    """Adversarial Denoising Diffusion Training (ADDT Algorithm 1).

    A diffusion model is fine-tuned on noise that a search made hard for it, one t for each image
    from the distribution its schedule is trained on. Only the diffusion model is trained, averaged
    and saved; the classifier guides in evaluation mode.

    Args:
        networks: the diffusion model to fine-tune, and the classifier that guides.
        perturbation: the search; `adpur.addt_paper`, `adpur.addt_released`, or an ablation.
        objective: the loss; `adpur.EDMWeighted` for EDM networks trained as EDM was.
        lr: of AdamW, constant after `warmup` steps of linear rise (none in the released code,
            500 in the paper).
        betas: of AdamW.
        dropout: probability in every dropout layer; the network's own if None.
        rows: images in every network call of the search; None for a whole batch at once. With a
            fixed number, the same weights give the same perturbations, to the bit, on any number
            of processes (where no dropout draws from the batch's generator).
        kwargs: of `DenoiserTraining`; without `max_time`, times are those the network was trained
            on.
    """

    guide: Lent

    def __init__(
        self,
        export: str,
        networks: Networks,
        perturbation: Perturbation,
        objective: DenoisingLoss | None = None,
        lr: float = 2e-4,
        betas: tuple[float, float] = (0.95, 0.999),
        weight_decay: float = 1e-6,
        warmup: int = 0,
        dropout: float | None = None,
        rows: int | None = None,
        **kwargs: Any,
    ) -> None:
        if dropout is not None and not 0 <= dropout < 1:
            raise ConfigError(f"dropout: expected a probability below 1, or null, got {dropout}")
        if rows is not None and rows < 1:
            raise ConfigError(f"rows: expected a positive number of images, or null, got {rows}")
        denoiser = networks.denoiser.requires_grad_(True).train()  # as Networks never is
        if networks.shape not in (None, tuple(denoiser.shape)):
            raise ConfigError(
                f"networks: the classifier takes images of {networks.shape}, the diffusion model "
                f"of {tuple(denoiser.shape)}; ADDT needs two of one size"
            )
        super().__init__(denoiser, export, lr, weight_decay=weight_decay, **kwargs)
        self.guide = Lent(networks.classifier)
        self.rows = rows
        self.perturbation, self.objective = perturbation, objective or EpsMSE()
        self.betas, self.annealing = betas, Annealing("constant", warmup)
        if dropout is not None:
            _set_dropout(denoiser, dropout)
        self.quarters = nn.ModuleList(MeanMetric() for _ in range(QUARTERS))
        self.last: Mixture | None = None

    def setup(self, stage: str) -> None:
        """Refuse fp16, in which the search's gradients vanish: nothing scales them."""
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
            raise ConfigError(
                "trainer.precision: ADDT's search needs gradients that fp16 rounds to zero, "
                f"got {plugin.precision}; take bf16-mixed"
            )
        super().setup(stage)

    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """Search, mix, and the weighted distance of the restored image to the clean one."""
        x, y, _ = batch
        share = self._shares(x, noise)
        t = self.denoiser.training_time(share)
        case = Case(to_signed(x), y, t, self.denoiser, self.guide.like(x))
        mixture = searched(self.perturbation, case, noise, self.rows)
        seen = case.restored(mixture(noise.normal(case.x, Stream.FORWARD)))
        losses = self.objective.losses(case, seen.x0)
        self._report(mixture, losses.detach(), share)
        return losses.mean()

    def configure_optimizers(self) -> Any:
        """A constant rate after the warm-up."""
        optimizer, steps = self._optimizer(self.betas), self.trainer.estimated_stepping_batches
        return [optimizer], [self.annealing.schedule(optimizer, steps)]

    def _report(self, mixture: Mixture, losses: Tensor, share: Tensor) -> None:
        self.last = mixture
        for k, metric in enumerate(self.quarters):
            metric.update(losses[(share * QUARTERS).long() == k])  # type: ignore[operator]
            self.log(f"train/loss_quarter{k + 1}", metric, on_step=False, on_epoch=True)  # type: ignore[arg-type]
        if len(mixture.losses):
            self.log("cgpo/first", mixture.losses[0].mean())
            self.log("cgpo/last", mixture.losses[-1].mean())


def _set_dropout(network: nn.Module, probability: float) -> None:
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Dropout)]
    if not layers and probability:
        raise ConfigError(f"dropout: {probability:g} has no dropout layer to act on; leave it out")
    for layer in layers:
        layer.p = probability
