"""Fit stages: the parts of training that every network of adpur shares."""

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.plugins.precision import HalfPrecision, MixedPrecision
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn
from torch.compiler import list_backends
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from adpur.addt.case import borrowed
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Source
from adpur.lit.data.base import Batch, ImageData
from adpur.lit.logging.loggers import AutoWandbLogger
from adpur.models.checkpoints.fingerprint import fingerprint
from adpur.models.networks import Networks


class Lent:
    """A frozen network a module uses and does not own: not saved, averaged or wrapped by DDP."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.requires_grad_(False).eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> "Lent":
        return self

    def like(self, x: Tensor) -> nn.Module:
        """The network where `x` is, in its precision."""
        return self.network.to(x)


class Training(pl.LightningModule):
    """One network, trained and written to a folder of safetensors and JSON.

    All randomness of a step is a function of (seed, step, image), dropout's of (seed, step, part
    of an accumulated batch, process), and the data module keeps the place in the data: a resumed
    fit equals an uninterrupted one.

    Args:
        export: folder the trained weights are written to; `adpur test` reads nothing else.
        lr: peak learning rate of AdamW.
        weight_decay: AdamW's.
        seed: of every draw.
        compile: torch.compile's backend for the trained network, such as `inductor`; None for none.
        optimizer: its constructor, such as `adpur.Muon`; AdamW at `lr` with `weight_decay` if None.
            Its own learning rates count, and `lr` does not.
        channels_last: keep the trained weights channels last. The same numbers up to rounding, and
            faster for networks of few channels on a CPU.
        half: write the trained parameters in fp16, half the size. They are read back as fp32, and
            whatever is measured of the written network is measured of these rounded weights.
    """

    def __init__(
        self,
        export: str,
        lr: float,
        weight_decay: float = 0.0,
        seed: int = 0,
        compile: str | None = None,
        optimizer: OptimizerCallable | None = None,
        channels_last: bool = False,
        half: bool = False,
    ) -> None:
        super().__init__()
        self.backend = compile
        self.export = Path(export).expanduser()
        self.lr, self.weight_decay, self.seed = lr, weight_decay, seed
        self.optimizer, self.channels_last, self.half_export = optimizer, channels_last, half

    @abstractmethod
    def loss(self, batch: Batch, noise: Noise) -> Tensor:
        """The scalar training loss of a batch, with keyed noise."""

    @abstractmethod
    def write(self, folder: Path) -> nn.Module:
        """Write the weights, and return the network as a test will load it."""

    @abstractmethod
    def networks(self, lent: Networks | None) -> Networks:
        """What a defence with this network borrows now; what it lacks is taken from `lent`.

        `Networks` freezes what it is given: ask for it within `adpur.addt.case.borrowed`.
        """

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The network `compile` compiles: all of the trained one that is worth it."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images it takes."""

    @property
    @abstractmethod
    def labeller(self) -> nn.Module | None:
        """The classifier that needs a logit for every label, if any."""

    def setup(self, stage: str) -> None:
        """Take the trainer's precision before a checkpoint is restored, which Lightning does after.

        Compiling in place leaves the names of weights, averages and exports what they are.
        """
        self._check_precision()
        self._check_data()
        self.trainer.precision_plugin.convert_module(self)
        if self.backend is not None:
            if self.backend not in list_backends(exclude_tags=None):
                known = ", ".join(list_backends())
                raise ConfigError(f"compile: expected one of {known}, got {self.backend}")
            self.trained.compile(backend=self.backend)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """One step; dropout's generator is set from the position, so a resume repeats it."""
        trainer = self.trainer
        part = batch_idx % trainer.accumulate_grad_batches * trainer.world_size + self.global_rank
        torch.manual_seed((self.seed * 1_000_003 + self.global_step) * 4099 + part)
        loss = self.loss(batch, self._noise(batch[2], Source.TRAIN))
        self.log("train/loss", loss, prog_bar=True)
        return loss * self._share(batch_idx)

    @rank_zero_only
    def on_fit_end(self) -> None:
        """Export, unless the fit was stopped early."""
        if not self.trainer.interrupted:
            self._take_averages()
            made = fingerprint(self.write(self.export))
            print(f"weights: {self.export}")
            for logger in self.loggers:
                if isinstance(logger, AutoWandbLogger):
                    logger.log_weights(self.export, made)

    def _check_precision(self) -> None:
        plugin = self.trainer.precision_plugin
        if isinstance(plugin, HalfPrecision):
            raise ConfigError(
                "trainer.precision: expected 32-true, bf16-mixed or 64-true, got "
                f"{plugin.precision}, in which weights are too coarse to train"
            )

    def _check_data(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ImageData):
            return
        if tuple(data.shape) != self.shape:
            raise ConfigError(
                f"data: expected images of {self.shape} (channels, height, width), which the "
                f"model takes, got {tuple(data.shape)}; take other data, weights or `shape`"
            )
        known = self._logits()
        if known is not None and not data.classes:
            raise ConfigError(
                "data: this fit needs labels, and the images have none; put them into a folder for "
                "each class"
            )
        if known is not None and data.classes > known:
            raise ConfigError(
                f"data: expected at most {known} classes, which the classifier has a logit for, "
                f"got {data.classes}"
            )

    def _logits(self) -> int | None:
        """How many the labeller has."""
        net = self.labeller
        if net is None:
            return None
        black = torch.zeros(1, *self.shape).to(next(self.parameters()))
        with borrowed(net, train=False):
            return int(net(black).shape[1])

    def _share(self, batch_idx: int) -> float:
        """What makes a mean of the parts of an epoch's last step, which may be fewer.

        Lightning divides every part by the number that a whole step has.
        """
        parts: int = self.trainer.accumulate_grad_batches
        left = self.trainer.num_training_batches - batch_idx // parts * parts
        return parts / min(parts, left)

    def _take_averages(self) -> None:
        """What Lightning does when training ends, and leaves out where no step was left to do."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):
                callback.on_train_end(self.trainer, self)

    def _noise(self, index: Tensor, source: Source) -> Noise:
        step = self.global_step if source is Source.TRAIN else 0
        return Noise(index, self.seed, source, restart=step >> 20, iteration=step & 0xFFFFF)

    def _optimizer(self, betas: tuple[float, float] = (0.9, 0.999)) -> Optimizer:
        """The one that was asked for, or AdamW."""
        return self._adamw(betas) if self.optimizer is None else self.optimizer(self.parameters())

    def _adamw(self, betas: tuple[float, float]) -> AdamW:
        # Lightning clips no gradients of a fused optimizer in mixed precision
        fused = not isinstance(self.trainer.precision_plugin, MixedPrecision)
        return AdamW(self.parameters(), self.lr, betas, weight_decay=self.weight_decay, fused=fused)


@dataclass(frozen=True)
class Annealing:
    """The course of a learning rate over a fit: a linear rise, then a fall to 0, or none.

    Args:
        form: of the fall: "constant" is none, "linear", or "cosine" (Loshchilov & Hutter 2017).
        warmup: steps of the linear rise; 0 for none.
    """

    form: Literal["constant", "linear", "cosine"] = "cosine"
    warmup: int = 0

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ConfigError(f"warmup: expected 0 or more steps, got {self.warmup}")

    def factor(self, step: int, steps: float) -> float:
        """What the learning rate is multiplied by at `step` of `steps`.

        >>> [Annealing("linear", 2).factor(step, 10) for step in (0, 1, 5)]
        [0.5, 0.9, 0.5]
        """
        done = min(step / steps, 1.0)
        angle = torch.tensor(torch.pi * done if self.form == "cosine" else 0.0)
        fall = 1 - done if self.form == "linear" else 0.5 + 0.5 * float(angle.cos())
        return min(1.0, (step + 1) / max(1, self.warmup)) * fall

    def schedule(self, optimizer: Optimizer, steps: float) -> dict[str, Any]:
        """What Lightning calls after every step of a fit of `steps`."""
        falls = self.form != "constant"  # the number of steps of an endless fit is not finite
        scheduler = LambdaLR(optimizer, lambda step: self.factor(step, steps if falls else 1))
        return {"scheduler": scheduler, "interval": "step"}
