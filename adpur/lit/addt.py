"""ADDT as a fit stage."""

from typing import Any

from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric

from adpur.addt.case import Case
from adpur.addt.objective import DenoisingLoss, EpsMSE
from adpur.addt.perturbation import Mixture, Perturbation
from adpur.errors import ConfigError
from adpur.level import ScoreNorm
from adpur.lit.data.base import Batch
from adpur.lit.diffusion import DenoiserTraining
from adpur.lit.training import Lent, warmed
from adpur.models.networks import Networks
from adpur.noise import Noise, Stream
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
        score_norms: see `DenoiserTraining`.
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
        score_norms: list[ScoreNorm] | None = None,
        seed: int = 0,
        compile: str | None = None,
    ) -> None:
        if dropout is not None and not 0 <= dropout < 1:
            raise ConfigError(f"dropout: expected a probability below 1, or null, got {dropout}")
        denoiser = networks.denoiser.requires_grad_(True).train()  # as Networks never is
        if networks.shape not in (None, tuple(denoiser.shape)):
            raise ConfigError(
                f"networks: the classifier takes images of {networks.shape}, the diffusion model "
                f"of {tuple(denoiser.shape)}; ADDT needs two of one size"
            )
        super().__init__(denoiser, export, lr, weight_decay, score_norms, seed, compile)
        self.guide = Lent(networks.classifier)
        self.perturbation, self.objective = perturbation, objective or EpsMSE()
        self.betas, self.warmup = betas, warmup
        for layer in denoiser.modules():
            if dropout is not None and isinstance(layer, nn.Dropout):
                layer.p = dropout
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
        case = Case(to_signed(x), y, self._time(share), self.denoiser, self.guide.like(x))
        mixture = self.perturbation.search(case, noise)
        seen = case.restored(mixture(noise.normal(case.x, Stream.FORWARD)))
        losses = self.objective.losses(case, seen.x0)
        self._report(mixture, losses.detach(), share)
        return losses.mean()

    def configure_optimizers(self) -> Any:
        """AdamW at a constant rate after the warm-up."""
        optimizer = self._adamw(self.betas)
        schedule = LambdaLR(optimizer, lambda step: warmed(step, self.warmup))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def _report(self, mixture: Mixture, losses: Tensor, share: Tensor) -> None:
        self.last = mixture
        for k, metric in enumerate(self.quarters):
            metric.update(losses[(share * QUARTERS).long() == k])  # type: ignore[operator]
            self.log(f"train/loss_quarter{k + 1}", metric, on_step=False, on_epoch=True)  # type: ignore[arg-type]
        if len(mixture.losses):
            self.log("cgpo/first", mixture.losses[0].mean())
            self.log("cgpo/last", mixture.losses[-1].mean())
