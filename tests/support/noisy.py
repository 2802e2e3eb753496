"""A random defence of known accuracy: a fixed two-layer network behind Gaussian input noise.

64 random images of 3 x 16 x 16, noise sigma 0.25, labels what most draws say: right on 0.81 of the
draws, on between 0.4 and 1.0 of those of one image. No weights are trained, nothing saturates.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adpur import Attack, Defense, Exact, Identity, Networks, Noise, Oracle, Stream
from adpur.judging.judge import Draws, Verdict, judge
from adpur.judging.trial import Examples, Trial
from adpur.purify.base import Context, Levels, Purified

SHAPE = (3, 16, 16)
IMAGES = 64


@dataclass(frozen=True)
class Noisy(Identity):
    """Adds keyed Gaussian noise."""

    sigma: float = 0.25

    def purify(self, x: Tensor, noise: Noise, levels: Levels, context: Context) -> Purified:
        plain = super().purify(x, noise, levels, context)
        return plain._replace(image=x + self.sigma * noise.normal(x, Stream.FORWARD))


class Net(nn.Module):
    """Two convolutions, mean pooling and a linear layer, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = SHAPE
        gen = torch.Generator().manual_seed(10)

        def weight(*shape: int) -> nn.Parameter:
            scale = (2 / torch.tensor(shape[1:]).prod()) ** 0.5
            return nn.Parameter(scale * torch.randn(shape, generator=gen))

        self.first, self.second = weight(16, 3, 3, 3), weight(16, 16, 3, 3)
        self.last = weight(10, 256)
        self.images = torch.rand(IMAGES, *SHAPE, generator=gen)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(F.conv2d(x - 0.5, self.first, padding=1))
        h = F.relu(F.conv2d(h, self.second, padding=1, stride=2))
        return 8 * F.avg_pool2d(h, 2).flatten(1) @ self.last.T


class Toy:
    """The defence, its images, their labels and `truth`, the accuracy of each over 100 draws."""

    def __init__(self, sigma: float = 0.25) -> None:
        net = Net()
        self.defense = Defense(Noisy(sigma), Networks(net), rows=64)
        self.x, self.noise = net.images, Noise(torch.arange(IMAGES), seed=3)
        said = torch.cat([self._said(seed) for seed in (100, 101)])
        self.y = said.mode(0).values
        self.truth = (said == self.y).double().mean(0)

    @torch.no_grad()
    def _said(self, seed: int) -> Tensor:
        keys = replace(self.noise, seed=seed).repeat(50)
        return self.defense(self.x.repeat(50, 1, 1, 1), keys).logits.argmax(1).view(50, -1)

    def oracle(self, random: bool = True, **kwargs: Any) -> Oracle:
        view = Exact().view(self.defense.purifier)
        return Oracle(self.defense, view, self.y, self.noise, random=random, **kwargs)

    def judged(self, attack: Attack | None = None, draws: int = 20) -> Verdict:
        """What `judge` says of an attack, or of the clean images."""
        trial = None if attack is None else Trial(self.defense, attack)
        images = Examples(self.x, self.y, self.noise)
        return judge(self.defense, images, Draws(draws, 10), trial)
