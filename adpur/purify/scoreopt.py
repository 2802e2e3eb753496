"""ScoreOpt: purification by optimising the image under the diffusion model (Zhang et al. 2023)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import VE
from adpur.diffusion.second_order import SecondOrder
from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.keyed.rows import calls_made, in_calls
from adpur.models.networks import Networks
from adpur.purify.base import Context, Levels, Purified, Purifier, Shape, fits
from adpur.purify.levels.level import Constant, NoiseLevel, ScoreNorm
from adpur.types import expand, to_signed, to_unit

SCHEDULE = VE()
BETAS, FLOOR = (0.9, 0.999), 1e-8
"""Adam's constants (Kingma & Ba 2015)."""


class Objective(ABC):
    """What the optimisation lowers: ||D(x_t) - x||^2 plus a second term, summed over an image.

    Sums, not the released code's batch mean, keep Adam's state free of batch mates.
    """

    @abstractmethod
    def second(
        self, x: Tensor, start: Tensor, denoised: Tensor, other: Callable[[], Tensor]
    ) -> Tensor | float:
        """The second term: `denoised` is D(x_t), `other()` is D(start + sigma e_2), one call."""


@dataclass(frozen=True)
class Diff(Objective):
    """No second term (ScoreOpt Eq. 6): what the released code runs."""

    def second(
        self, x: Tensor, start: Tensor, denoised: Tensor, other: Callable[[], Tensor]
    ) -> Tensor | float:
        """Nothing."""
        return 0.0


@dataclass(frozen=True)
class Anchored(Objective):
    """lambda ||x - x_a||^2: the paper's MSE loss (Eq. 7)."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        _check(self.weight)

    def second(
        self, x: Tensor, start: Tensor, denoised: Tensor, other: Callable[[], Tensor]
    ) -> Tensor | float:
        """The distance to the input."""
        return self.weight * ((x - start) ** 2).sum()


@dataclass(frozen=True)
class SR(Objective):
    """lambda ||D(x_t) - D(x_a + sigma e_2)||^2: score regularisation (Eq. 8), lambda 1 there."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        _check(self.weight)

    def second(
        self, x: Tensor, start: Tensor, denoised: Tensor, other: Callable[[], Tensor]
    ) -> Tensor | float:
        """The distance between the two one-shot denoisings."""
        return self.weight * ((denoised - other()) ** 2).sum()


def _check(weight: float) -> None:
    if not 0 <= weight < float("inf"):
        raise ConfigError(f"lambda (weight) must be >= 0, got {weight}")


@dataclass(frozen=True)
class ScoreOpt(Purifier):
    """Adam on the image (ScoreOpt-O, Algorithm 1) or on the noisy image (-N, Algorithm 2).

    -O takes `inner_steps` steps on x, a new noise level each. -N takes `rounds` times: diffuse to
    one level, `inner_steps` steps on x_t, then denoise in one shot. Levels are sigmas of `VE`,
    networks of other schedules asked at equal noise. The gradient runs through the network, and an
    exact attack differentiates the unrolled optimisation to second order.

    Args:
        level: the centre of the noise levels, a sigma.
        width: levels are uniform on centre (1 - width) to centre (1 + width).
        lr: Adam's step size.
        inner_steps: optimisation steps (the papers' "Step").
        rounds: 0 is -O; M of Algorithm 2 for -N, 1 in the papers' tables.
        objective: Diff, Anchored or SR.
        frozen: -N pulls D(x_t) to the round's x_i as printed; False to x_t - sigma e_1, which is
            what the released loss ||eps_hat - e_1||^2 amounts to.
        clamp: clamp the result to [0, 1], as released.
        batch: as released the loss is a mean over the pixels of this many images (and of squared
            unit noise for -N with `frozen` False), not a sum: gradients are so small that Adam's
            1e-8 counts, and an image's result depends on how many were optimised beside it. None
            is the sum, of which it does not.
    """

    level: NoiseLevel = Constant(0.5)
    width: float = 0.2
    lr: float = 0.1
    inner_steps: int = 5
    rounds: int = 0
    objective: Objective = Diff()
    frozen: bool = True
    clamp: bool = True
    batch: int | None = None
    depth = 1

    def __post_init__(self) -> None:
        if not (0 <= self.width <= 1 and self.lr > 0):
            raise ConfigError(
                f"ScoreOpt needs 0 <= width <= 1 and lr > 0, got {self.width} and {self.lr}"
            )
        if self.batch is not None and self.batch < 1:
            raise ConfigError(
                f"ScoreOpt batch must be a number of images or null, got {self.batch}"
            )
        if (
            self.inner_steps < 0
            or self.rounds < 0
            or 3 * max(1, self.rounds) * max(1, self.inner_steps) > 4000
        ):
            raise ConfigError(
                "ScoreOpt needs inner_steps and rounds >= 0 and at most 1333 steps in all, got "
                f"{self.inner_steps} and {self.rounds}"
            )

    @property
    def measure(self) -> ScoreNorm | None:
        """The level's."""
        return self.level.measure

    def check(self, nets: Networks, shape: Shape) -> None:
        """The centre must lie in the schedule."""
        fits(nets, shape)
        if not 0 <= self.level.configured <= SCHEDULE.end:
            raise ConfigError(
                f"ScoreOpt's level is a sigma in 0..{SCHEDULE.end:g}, got {self.level.configured:g}"
            )
        self.level.check(nets)
        largest = self.level.largest * (1 + self.width)
        asks = f"ScoreOpt with sigma up to {largest:g}"
        nets.denoiser.on(SCHEDULE).check_time(min(largest, SCHEDULE.end), asks)

    def seen(self, x: Tensor) -> Tensor:
        """Itself."""
        return x

    def levels(self, norm: Tensor, noise: Noise) -> Tensor:
        """The centre."""
        return self.level.level(norm, noise)[None].clamp(0, SCHEDULE.end)

    def steps(self, levels: Tensor, nets: Networks) -> Tensor:
        """The same for all rows."""
        count = max(1, self.rounds) * self.inner_steps + self.rounds
        return torch.full((levels.shape[1],), count)

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        """R rows after R rows."""
        fits(context.nets, tuple(x.shape[1:]))
        nfe = torch.zeros(len(x), dtype=torch.int64)

        def work(part: Tensor) -> list[Tensor]:
            before = calls_made()
            rows = part.to(x.device)
            image = self._optimised(x[rows], noise[rows], levels.t[0][part], context)
            nfe[part] = calls_made() - before
            return [image]

        (image,) = in_calls(work, len(x), context.rows)
        return Purified(image, levels.t.detach(), nfe)

    def _optimised(self, x: Tensor, noise: Noise, centre: Tensor, context: Context) -> Tensor:
        run = _Run(self, context.nets.denoiser.on(SCHEDULE), noise, centre)
        image = start = to_signed(x)
        if self.rounds == 0:
            image = run.descend(image, image, start, None, self.inner_steps, context)
        for left in range(self.rounds, 0, -1):
            sigma, e = (
                run.sigma(left * max(1, self.inner_steps)),
                run.normal(x, left, Stream.FORWARD),
            )
            noisy = image + expand(sigma, x) * e
            first = left * self.inner_steps
            noisy = run.descend(noisy, image, start, (sigma, e), first, context)
            image = run.denoiser(noisy, sigma)
        image = to_unit(image)
        return image.clamp(0, 1) if self.clamp else image


@dataclass(frozen=True)
class _Run:
    """One purification of R rows; draws are keyed by optimisation steps to go."""

    setting: ScoreOpt
    denoiser: Denoiser
    noise: Noise
    centre: Tensor

    def sigma(self, to_go: int) -> Tensor:
        """A level for each row, fp64 on the host."""
        u = self.noise.fold(step=3 * to_go).uniform(self.centre.detach(), Stream.OPTIMISE)
        return self.centre * (1 + self.setting.width * (2 * u - 1))

    def normal(self, like: Tensor, step: int, stream: Stream = Stream.OPTIMISE) -> Tensor:
        """Unit noise."""
        return self.noise.fold(step=step).normal(like, stream)

    def descend(
        self,
        z: Tensor,
        image: Tensor,
        start: Tensor,
        fixed: tuple[Tensor, Tensor] | None,
        first: int,
        context: Context,
    ) -> Tensor:
        """`inner_steps` steps of Adam on z, of which `first` remain in all (with later rounds')."""
        m = v = torch.zeros_like(z)
        for j in range(self.setting.inner_steps):
            left = first - j
            sigma = fixed[0] if fixed else self.sigma(left)

            def body(*state: Tensor, j: int = j, left: int = left) -> tuple[Tensor, ...]:
                z, m, v, image, start, sigma = state
                grad = self._gradient(z, image, start, sigma, fixed, left)
                return _adam(z, grad, m, v, j + 1, self.setting.lr)

            z, m, v = context.memory.run(
                body, z, m, v, image, start, sigma, kind=self.setting.objective
            )
        return z

    def _gradient(
        self,
        z: Tensor,
        image: Tensor,
        start: Tensor,
        sigma: Tensor,
        fixed: tuple[Tensor, Tensor] | None,
        left: int,
    ) -> Tensor:
        """The gradient of the objective in z, itself differentiable where its inputs are.

        Made by the operations that can be differentiated again, whether or not it will be (a
        quarter slower than those that cannot): a purification's bits are the same for whoever asks.
        For attention `SecondOrder` chooses them.
        """
        scale, inputs = expand(sigma, z), (z, image, start, sigma)
        differentiated = torch.is_grad_enabled() and any(v.requires_grad for v in inputs)
        with torch.enable_grad(), SecondOrder():
            # a node of its own: at first z, image and start are one tensor
            z = z.view_as(z) if z.requires_grad else z.detach().requires_grad_()
            if fixed is None:  # Algorithm 1: z is the image
                x, noisy = z, z + scale * self.normal(z, 3 * left + 1)
            else:  # Algorithm 2: z is the noisy image
                x, noisy = z - scale * fixed[1], z
            target = image if fixed is not None and self.setting.frozen else x
            denoised = self.denoiser(noisy, sigma)

            def other() -> Tensor:
                e2 = self.normal(z, 3 * left + 2)
                return self.denoiser(start + scale * e2, sigma)

            loss = ((denoised - target) ** 2).sum()
            loss = loss + self.setting.objective.second(x, start, denoised, other)
            (grad,) = torch.autograd.grad(loss, z, create_graph=True)
            if self.setting.batch is not None:
                grad = grad / self._divisor(scale, fixed is not None)
        return grad if differentiated else grad.detach()

    def _divisor(self, scale: Tensor, noisy: bool) -> Tensor:
        """What makes a mean of the sum, `(R, 1, 1, 1)`: the loss of -N is of eps_hat - e_1."""
        assert self.setting.batch is not None
        pixels = self.setting.batch * math.prod(self.denoiser.shape)
        return pixels * (scale**2 if noisy and not self.setting.frozen else torch.ones_like(scale))


def _adam(
    z: Tensor, grad: Tensor, m: Tensor, v: Tensor, count: int, lr: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Adam, every quantity a function of its own pixel."""
    m = BETAS[0] * m + (1 - BETAS[0]) * grad
    v = BETAS[1] * v + (1 - BETAS[1]) * grad**2
    hat = v / (1 - BETAS[1] ** count)
    moved = hat > 0  # the root's gradient at 0 is infinite
    root = torch.where(moved, torch.where(moved, hat, 1.0).sqrt(), 0.0)
    return z - lr * (m / (1 - BETAS[0] ** count)) / (root + FLOOR), m, v
