"""Networks of other conventions as denoisers."""

import json

import torch
from torch import Tensor, nn

from adpur.models.denoiser import Denoiser
from adpur.schedule import DiscreteVP
from adpur.types import expand


class EpsDenoiser(Denoiser):
    """An eps-prediction network `net(x_t, label)` on a discrete VP schedule, label = t - 1.

    Heads that also predict a variance (twice the channels, Nichol & Dhariwal 2021) are cut to
    the first C channels. The conversion to x0_hat runs in fp32 or wider, whatever the autocast.
    """

    def __init__(self, net: nn.Module, schedule: DiscreteVP, shape: tuple[int, int, int]) -> None:
        super().__init__(schedule, shape)
        self.net = net

    def eps(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's own output, at label t - 1."""
        label = (t - 1).clamp_min(0).to(x_t.device)
        out: Tensor = self.net(x_t, label)[:, : x_t.shape[1]]
        return out

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """x0_hat = (x_t - sigma_t eps_hat) / alpha_t."""
        eps = self.eps(x_t, t)
        wide = torch.promote_types(eps.dtype, torch.float32)
        x_t, eps = x_t.to(wide), eps.to(wide)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return (x_t - expand(sigma, x_t) * eps) / expand(alpha, x_t)


class DiffusersNet(nn.Module):
    """A diffusers `UNet2DModel` as a plain `net(x, label) -> Tensor`."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def extra_repr(self) -> str:
        """The constructor's arguments, which modules alone do not show."""
        config = dict(self.unet.config)  # type: ignore[arg-type]
        return json.dumps({k: v for k, v in config.items() if k[0] != "_"}, sort_keys=True)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """The model's sample, without its output class."""
        out: Tensor = self.unet(x, label, return_dict=False)[0]
        return out
