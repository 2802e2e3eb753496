"""A purifier and its networks as one classifier of [0, 1] images."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adpur.errors import ConfigError
from adpur.models.networks import Networks
from adpur.noise import Noise
from adpur.purify.base import Levels, Purifier, Tap
from adpur.rows import mapped

ROWS = 64
"""The default R: on a CPU, calls of 64 small images already cost what 128 cost per image."""


class Prediction(NamedTuple):
    """What a defence says of B images.

    `logits` `(B, classes)`; the purified `image`; raw and `snapped` levels `(B, S)`; the
    `score_norm` `(B,)` behind them, NaN if none; `nfe` `(B,)` measured calls of diffusion
    networks, those of the score norm included.
    """

    logits: Tensor
    image: Tensor
    levels: Tensor
    snapped: Tensor
    score_norm: Tensor
    nfe: Tensor


class Defense(nn.Module):
    """Purify, then classify, in network calls of exactly `rows` rows.

    Args:
        purifier: the deployed purifier.
        networks: what it borrows.
        rows: R. Part of a result's identity: another R changes last bits.
        workers: threads that each run a chunk of R rows at a time; changes no bit.

    >>> from adpur.models.classifiers import CifarResNet
    >>> from adpur.purify.base import Identity
    >>> defense = Defense(Identity(), Networks(CifarResNet(blocks=1)), rows=4)
    >>> defense(torch.rand(2, 3, 32, 32)).logits.shape
    torch.Size([2, 10])
    """

    def __init__(
        self, purifier: Purifier, networks: Networks, rows: int = ROWS, workers: int = 1
    ) -> None:
        super().__init__()
        if rows < 1 or workers < 1:
            raise ConfigError(f"rows and workers must be positive, got {rows} and {workers}")
        purifier.check(networks)
        self.purifier = purifier
        self.networks = networks
        self.rows = rows
        self.workers = workers

    def forward(
        self,
        x: Tensor,
        noise: Noise | None = None,
        levels: Levels | None = None,
        tap: Tap | None = None,
    ) -> Prediction:
        """Purify and classify; differentiable unless called under `torch.no_grad`.

        Args:
            x: images `(B, C, H, W)` in [0, 1].
            noise: keys of the rows; by default rows 0..B-1 of seed 0.
            levels: raw levels, if already known.
            tap: observer of the reverse loop, called once per chunk and step.
        """
        with torch.inference_mode(False):  # a purifier may need gradients inside, in clean runs too
            x = self.validated(x.clone() if x.is_inference() else x)
            noise = noise if noise is not None else Noise(torch.arange(len(x), device=x.device))
            levels = levels if levels is not None else self.levels(x, noise)

            def work(chunk: Tensor, real: int) -> Prediction:
                return self._chunk(self.purifier, x, noise, levels, chunk, tap)

            cost = self.purifier.steps(levels, self.networks)
            return Prediction(*mapped(work, cost, self.rows, self.workers))

    @torch.no_grad()
    def levels(self, x: Tensor, noise: Noise) -> Levels:
        """Raw levels of images in [0, 1], brought to the host: the one synchronisation there is."""

        def work(chunk: Tensor, real: int) -> list[Tensor]:
            levels = self.purifier.levels(x[chunk], self.networks, noise[chunk])
            return [levels.t.T, levels.score_norm, levels.nfe]

        t, score_norm, nfe = mapped(work, torch.zeros(len(x)), self.rows, self.workers)
        t = t.T.cpu()
        if not torch.isfinite(t).all():  # it would snap to some time and pass for a level
            raise ConfigError(f"{self.purifier} gave a noise level that is not finite")
        return Levels(t, score_norm, nfe)

    def loss_and_grad(
        self,
        x: Tensor,
        noise: Noise,
        levels: Levels,
        loss: Callable[[Tensor, Tensor], Tensor],
        view: Purifier | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Per-row losses `(B,)` and their gradients `(B, C, H, W)` with respect to `x`.

        `loss(logits, rows)` gets a chunk's logits and the batch rows they belong to. Each chunk
        is backed through before the next is built: memory follows R, not B.
        """
        view = view if view is not None else self.purifier

        def work(chunk: Tensor, real: int) -> list[Tensor]:
            part = x[chunk].detach().requires_grad_()
            logits = self._chunk(view, part, noise, levels, chunk, None, cut=True).logits
            value = loss(logits, chunk)
            (grad,) = torch.autograd.grad(value[:real].sum(), part)
            return [value.detach(), grad]

        with torch.inference_mode(False), torch.enable_grad():
            cost = view.steps(levels, self.networks)
            value, grad = mapped(work, cost, self.rows, self.workers)
        return value, grad

    def validated(self, x: Tensor) -> Tensor:
        """`x` itself, if it holds images this defence can take; else an error that says why."""
        shape = self.networks.shape
        if x.dim() != 4 or (shape is not None and tuple(x.shape[1:]) != shape):
            want = "x".join(map(str, shape or ("C", "H", "W")))
            raise ConfigError(f"expected images (B, {want}), got {tuple(x.shape)}")
        if not x.is_floating_point():
            raise ConfigError(
                f"expected floating-point images in [0, 1], got {x.dtype}; divide by 255"
            )
        if not torch.isfinite(x).all():
            raise ConfigError("expected images in [0, 1], got NaN or infinite values")
        low, high = x.min().item(), x.max().item()
        if low < 0 or high > 1:
            raise ConfigError(
                f"expected images in [0, 1], got values in [{low:.3g}, {high:.3g}]; "
                "normalisation belongs inside the classifier (mean, std)"
            )
        return x

    def _chunk(
        self,
        purifier: Purifier,
        x: Tensor,
        noise: Noise,
        levels: Levels,
        chunk: Tensor,
        tap: Tap | None,
        cut: bool = False,
    ) -> Prediction:
        rows = chunk.to(x.device)
        part, known = x if cut else x[rows], levels.at(chunk)
        out = purifier.purify(part, self.networks, noise[rows], known, tap)
        logits = self.networks.classifier(out.image)
        nfe = known.nfe + out.nfe.cpu()
        return Prediction(logits, out.image, known.t.T, out.levels.T, known.score_norm, nfe)
