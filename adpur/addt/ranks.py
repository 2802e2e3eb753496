"""Where a pixel's value stands among those of its image and channel."""

import torch
from torch import Tensor


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
