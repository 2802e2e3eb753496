"""What the searches of a fit found, in counts: memory does not grow with its steps."""

import torch
from torch import Tensor

from adpur.addt.perturbation import Mixture

BINS = 100


class Tally:
    """Counts over the training steps of a fit.

    Args:
        top: the largest lambda_t to be told apart; the last bin holds what is above.

    Attributes:
        counts: `ranks` `(3, C, HW)` of the accumulated gradient at three pixels (ADDT Fig. 9);
            `weights` `(BINS,)` of lambda_t on [0, top]; sums over steps of the guide's mean loss
            at each iteration, of the stretch at hand (`guide`) and of the first one (`first`),
            with their numbers of steps in the last place.
    """

    def __init__(self, top: float) -> None:
        self.top = top
        self.counts: dict[str, Tensor] = {}

    def add(self, mixture: Mixture) -> None:
        """Count one batch, where it lies: nothing is brought to the host."""
        height, width = mixture.found.shape[2:]
        pixels = [row * width + column for row, column in shown(height, width)]
        ranks = ranks_at(mixture.found, torch.tensor(pixels, device=mixture.found.device))
        self._add("ranks", counted(ranks.permute(2, 1, 0), height * width))
        bins = (mixture.add * (BINS / self.top)).long().clamp_max(BINS - 1)
        self._add("weights", counted(bins, BINS))
        losses = mixture.losses.double().mean(1)
        self._add("guide", torch.cat((losses, losses.new_ones(1))))

    def close(self) -> None:
        """End a stretch of steps; the first one is kept."""
        guide = self.counts.pop("guide", None)
        if guide is not None:
            self.counts.setdefault("first", guide)
            self.counts["last"] = guide

    def _add(self, name: str, value: Tensor) -> None:
        before = self.counts.get(name)
        self.counts[name] = value if before is None else before.to(value.device) + value


def shown(height: int, width: int) -> list[tuple[int, int]]:
    """The pixels of ADDT Fig. 9: [1, 1], a quarter of the way, the middle."""
    return [
        (min(1, height - 1), min(1, width - 1)),
        (height // 4, width // 4),
        (height // 2, width // 2),
    ]


def counted(values: Tensor, bins: int) -> Tensor:
    """How often each of 0..bins-1 stands in the last dimension; `(..., N)` to `(..., bins)`.

    >>> counted(torch.tensor([[0, 2, 2]]), 3).tolist()
    [[1, 0, 2]]
    """
    empty = torch.zeros(*values.shape[:-1], bins, dtype=torch.int64, device=values.device)
    return empty.scatter_add_(-1, values, torch.ones_like(values))


def ranks_at(delta: Tensor, pixels: Tensor) -> Tensor:
    """Ranks `(B, C, P)` from 0, of the flat positions `pixels` `(P,)` of `delta` `(B, C, H, W)`.

    What `RBGM` sorts by: ties keep the order of the pixels.

    >>> ranks_at(torch.tensor([[[[3.0, 1.0], [2.0, 2.0]]]]), torch.tensor([0, 3]))
    tensor([[[3, 2]]])
    """
    flat = delta.flatten(2).unsqueeze(2)
    own = flat[:, :, 0, pixels].unsqueeze(-1)
    earlier = torch.arange(flat.shape[-1], device=delta.device) < pixels.view(-1, 1)
    return ((flat < own) | ((flat == own) & earlier)).sum(-1)
