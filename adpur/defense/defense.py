"""A purifier and its networks as one classifier of [0, 1] images."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adpur.defense.ensemble import Ensemble, Single
from adpur.defense.gradient import Remembered
from adpur.diffusion.deviation import Path
from adpur.diffusion.reverse import Tap
from adpur.errors import ConfigError
from adpur.keyed.memory import Keep
from adpur.keyed.noise import Noise, Stream
from adpur.keyed.rows import groups, in_calls, mapped
from adpur.models.keyed import Seeded
from adpur.models.networks import Networks
from adpur.purify.base import Context, Levels, Purifier, score_norms

ROWS = 64
"""The default R: on a CPU, calls of 64 small images already cost what 128 cost per image."""


class Prediction(NamedTuple):
    """What a defence says of B images.

    `logits` `(B, classes)`; the purified `image`; raw and `snapped` levels `(B, S)`; the
    `score_norm` `(B,)` behind them, NaN if none; `nfe` `(B,)` measured calls of diffusion
    networks, those of the score norm included. Of several votes, image and levels are the
    first's and `nfe` is the sum.
    """

    logits: Tensor
    image: Tensor
    levels: Tensor
    snapped: Tensor
    score_norm: Tensor
    nfe: Tensor


class Slope(NamedTuple):
    """Losses `(B,)`, their gradients `(B, C, H, W)` in x and `(B,)` in the score norm, and the
    logits `(B, classes)` they were computed from.
    """

    value: Tensor
    grad: Tensor
    in_norm: Tensor
    logits: Tensor


Loss = Callable[[Tensor, Tensor], Tensor]
"""`loss(logits, rows)`: per-row losses of some batch rows."""


class Defense(nn.Module):
    """Purify, then classify, in network calls of exactly `rows` rows.

    Args:
        purifier: the deployed purifier.
        networks: what it borrows.
        rows: R. Part of a result's identity: another R changes last bits.
        workers: threads that each work on a part of the batch; changes no bit.
        ensemble: how many purifications make one prediction, and how.

    >>> from adpur.models.classifiers import CifarResNet
    >>> from adpur.purify.base import Identity
    >>> defense = Defense(Identity(), Networks(CifarResNet(blocks=1)), rows=4)
    >>> defense(torch.rand(2, 3, 32, 32)).logits.shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        purifier: Purifier,
        networks: Networks,
        rows: int = ROWS,
        workers: int = 1,
        ensemble: Ensemble = Single(),
    ) -> None:
        super().__init__()
        if rows < 1 or workers < 1:
            raise ConfigError(f"rows and workers must be positive, got {rows} and {workers}")
        purifier.check(networks, networks.shape)
        self.purifier = purifier
        self.networks = networks
        self.rows = rows
        self.workers = workers
        self.ensemble = ensemble

    @property
    def threads(self) -> int:
        """`workers`, or one where rows that share a call share a generator (`Seeded`)."""
        return 1 if isinstance(self.networks.classifier, Seeded) else self.workers

    def forward(
        self, x: Tensor, noise: Noise | None = None, levels: Levels | None = None,
        tap: Tap | None = None,
    ) -> Prediction:  # fmt: skip
        """Purify and classify; differentiable unless called under `torch.no_grad`.

        Args:
            x: images `(B, C, H, W)` in [0, 1].
            noise: keys of the rows; by default rows 0..B-1 of seed 0.
            levels: raw levels of every vote, vote-major, if already known.
            tap: observer of the reverse loop; with several workers, called from their threads.
        """
        grad = torch.is_grad_enabled()  # which leaving inference mode would turn on
        # a purifier may need gradients inside, in clean runs too
        with torch.inference_mode(False), torch.set_grad_enabled(grad):
            x = self.validated(x.clone() if x.is_inference() else x)
            noise = noise if noise is not None else Noise(torch.arange(len(x), device=x.device))
            if (votes := self.ensemble.votes) == 1:
                return self._vote(x, noise, levels, tap)
            votes_x, keys = x.repeat(votes, 1, 1, 1), noise.tiled("vote", votes)
            out = self._vote(votes_x, keys, levels, tap)
            first = Prediction(*(v[: len(x)] for v in out))
            logits = self.ensemble.combine(out.logits.view(votes, len(x), -1))
            return first._replace(logits=logits, nfe=out.nfe.view(votes, -1).sum(0))

    @torch.no_grad()
    def levels(self, x: Tensor, noise: Noise, view: Purifier | None = None) -> Levels:
        """Raw levels of images in [0, 1], brought to the host: the one synchronisation there is."""
        view = view if view is not None else self.purifier
        context = Context(self.networks, self.rows)

        def work(part: Tensor) -> list[Tensor]:
            rows = part.to(x.device)
            return score_norms(view, x[rows], noise[rows], context)

        norm, nfe = mapped(work, self._parts(torch.ones(len(x), dtype=torch.int64)), self.threads)
        return self.leveled(norm.cpu(), nfe, noise, view)

    def leveled(
        self, norm: Tensor, nfe: Tensor, noise: Noise, view: Purifier | None = None
    ) -> Levels:
        """Levels from score norms already measured."""
        t = (view if view is not None else self.purifier).levels(norm, noise)
        if not torch.isfinite(t).all():  # it would snap to some time and pass for a level
            raise ConfigError(f"{self.purifier} gave a noise level that is not finite")
        return Levels(t, norm, nfe)

    def loss_and_grad(
        self, x: Tensor, noise: Noise, levels: Levels, loss: Loss, view: Purifier | None = None,
        through: bool = False, deviation: float | None = None,
    ) -> Slope:  # fmt: skip
        """Per-row losses of single votes and their gradients with respect to `x`.

        Each part of the batch is backed through before the next is built: memory follows R and
        the number of steps, not B. With `through`, t(x) is not a constant: `in_norm` is the
        derivative in the score norm it is computed from, else 0. With a `deviation`, so much of
        how far the walk strayed (`Path.mean`) is added to the loss.
        """
        view = view if view is not None else self.purifier
        context = Context(self.networks, self.rows, workers=self.threads)

        def work(part: Tensor) -> list[Tensor]:
            rows = part.to(x.device)
            image, keys, known = x[rows].detach().requires_grad_(), noise[rows], levels.at(part)
            norm = known.score_norm.detach().requires_grad_(through)
            if through:
                known = known._replace(t=view.levels(norm, keys), score_norm=norm)
            path = None if deviation is None else Path(len(part))
            purified = view.purify(image, keys, known, replace(context, path=path)).image
            logits = self._classified(purified, keys)
            value = loss(logits, part)
            if path is not None and deviation is not None:
                value = value + deviation * path.mean()
            wanted = [image, norm] if through else [image]
            grads = torch.autograd.grad(
                value.sum(), wanted, allow_unused=True, materialize_grads=True
            )
            in_norm = [] if through else [torch.zeros_like(norm)]
            return [value.detach(), *grads, *in_norm, logits.detach()]

        with torch.inference_mode(False), torch.enable_grad():
            parts = self._parts(view.steps(levels.t, self.networks), differentiated=True)
            return Slope(*mapped(work, parts, self.threads))

    def pulled_back(
        self, x: Tensor, noise: Noise, levels: Levels, seed: Tensor, view: Purifier
    ) -> Tensor:
        """Gradients at `x` of <seed, purified image>, `(B, C, H, W)` like `seed`: the purifier's
        backward pass alone, whatever the image is wanted for.
        """
        context = Context(self.networks, self.rows, workers=self.threads)

        def work(part: Tensor) -> list[Tensor]:
            rows = part.to(x.device)
            image = x[rows].detach().requires_grad_()
            purified = view.purify(image, noise[rows], levels.at(part), context).image
            return list(torch.autograd.grad(purified, image, seed[rows]))

        with torch.inference_mode(False), torch.enable_grad():
            parts = self._parts(view.steps(levels.t, self.networks), differentiated=True)
            return mapped(work, parts, self.threads)[0]

    @torch.no_grad()
    def random(self, like: Tensor) -> bool:
        """Whether draws differ, measured on eight of uniform noise and of grey, shaped as `like`.

        What is found deterministic here is checked again wherever it is evaluated (`judge`).
        """
        probe = torch.full_like(like[:1], 0.5).repeat(2, 1, 1, 1)
        keys = Noise(torch.zeros(2, dtype=torch.int64, device=like.device))
        probe[1] = keys[:1].uniform(probe[:1], Stream.FORWARD)
        answers = self(probe.repeat(8, 1, 1, 1), keys.repeat(8)).logits.view(8, -1)
        return not bool((answers == answers[0]).all())

    def norm_grad(self, x: Tensor, noise: Noise, view: Purifier | None = None) -> Tensor:
        """Gradient of the score norm of each image, `(B, C, H, W)`."""
        view = view if view is not None else self.purifier
        memory = view.memory.shared(self.threads) if isinstance(view, Remembered) else Keep()
        context = Context(self.networks, self.rows, memory)

        def work(part: Tensor) -> list[Tensor]:
            rows = part.to(x.device)
            image = x[rows].detach().requires_grad_()
            norm, _ = score_norms(view, image, noise[rows], context)
            return list(torch.autograd.grad(norm.sum(), image))

        with torch.inference_mode(False), torch.enable_grad():
            parts = self._parts(torch.ones(len(x), dtype=torch.int64), differentiated=True)
            return mapped(work, parts, self.threads)[0]

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

    def _vote(self, x: Tensor, noise: Noise, levels: Levels | None, tap: Tap | None) -> Prediction:
        known = levels if levels is not None else self.levels(x, noise)
        if known.t.shape != (self.purifier.depth, len(x)):
            raise ConfigError(
                f"expected levels ({self.purifier.depth}, {len(x)}), got {tuple(known.t.shape)}"
            )

        def work(part: Tensor) -> list[Tensor]:
            rows, own = part.to(x.device), known.at(part)
            watch = None if tap is None else lambda seen: tap(seen._replace(row=part[seen.row]))
            context = Context(self.networks, self.rows, tap=watch)
            out = self.purifier.purify(x[rows], noise[rows], own, context)
            logits = self._classified(out.image, noise[rows])
            return [logits, out.image, own.t.T, out.levels.T, own.score_norm, own.nfe + out.nfe]

        cost = self.purifier.steps(known.t, self.networks)
        return Prediction(*mapped(work, self._parts(cost, torch.is_grad_enabled()), self.threads))

    def _classified(self, image: Tensor, noise: Noise) -> Tensor:
        def work(i: Tensor) -> list[Tensor]:
            i = i.to(image.device)
            return [self.networks.classify(image[i], noise[i])]

        return in_calls(work, len(image), self.rows)[0]

    def _parts(self, cost: Tensor, differentiated: bool = False) -> list[Tensor]:
        """The batch in parts of nearly equal work, for lanes of R rows.

        A differentiated part holds its whole graph: no more than R rows of the largest cost, or
        4 R rows of little. Others are as large as the workers leave them, up to 16 R.
        """
        count, rows = len(cost), self.rows
        if differentiated:
            full = rows * max(1, int(cost.max()))
            parts = max(-(-int(cost.sum()) // full), -(-count // (4 * rows)))
        else:
            parts = max(min(self.threads, -(-count // rows)), -(-count // (16 * rows)))
        return groups(cost, rows, parts)
