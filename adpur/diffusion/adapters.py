"""Networks of other conventions as denoisers."""

import inspect
import json
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import VE, NoiseSchedule
from adpur.types import expand


class NetDenoiser(Denoiser):
    """A network `net(x_t, label)` of any prediction type, label as its schedule says.

    Heads that also predict a variance (twice the channels, Nichol & Dhariwal 2021) are cut to
    the first C channels. The conversion to x0_hat runs in fp32 or wider, whatever the autocast.
    """

    def __init__(
        self, net: nn.Module, schedule: NoiseSchedule, shape: tuple[int, int, int]
    ) -> None:
        super().__init__(schedule, shape)
        self.net = net

    def output(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's own prediction `(B, C, H, W)`."""
        label = self.schedule.label(t).to(x_t.device)
        if label.is_floating_point():
            label = label.to(x_t.dtype)
        out: Tensor = self.net(x_t, label)[:, : x_t.shape[1]]
        return out

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """See the class."""
        out = self.output(x_t, t)
        wide = torch.promote_types(out.dtype, torch.float32)
        x_t, out = x_t.to(wide), out.to(wide)
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        return self.x0(out, x_t, expand(alpha, x_t), expand(sigma, x_t))

    @abstractmethod
    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x0_hat from the network's output; `alpha` and `sigma` are `(B, 1, 1, 1)`."""


class EpsDenoiser(NetDenoiser):
    """eps-prediction (DDPM; score_sde's VP networks with `LinearVP`)."""

    def eps(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's own output."""
        return self.output(x_t, t)

    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x0_hat = (x_t - sigma_t eps_hat) / alpha_t."""
        return (x_t - sigma * out) / alpha


class VDenoiser(NetDenoiser):
    """v-prediction, v = alpha_t eps - sigma_t x_0 on a VP schedule (Salimans & Ho 2022)."""

    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x0_hat = alpha_t x_t - sigma_t v_hat."""
        return alpha * x_t - sigma * out


class X0Denoiser(NetDenoiser):
    """x0-prediction."""

    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The output itself."""
        return out


class FlowDenoiser(NetDenoiser):
    """Velocity prediction on `RectifiedFlow`, v = eps - x_0 (Liu et al. 2023)."""

    def x0(self, out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """x0_hat = x_t - sigma_t v_hat, as alpha_t + sigma_t = 1."""
        return x_t - sigma * out


class EDMDenoiser(Denoiser):
    """EDM's preconditioning of a raw network F (Karras et al. 2022, Eq. 7 and Table 1).

    D(x; sigma) = c_skip x + c_out F(c_in x; c_noise), c_skip = sd^2 / (sigma^2 + sd^2), c_out =
    sigma sd / sqrt(sigma^2 + sd^2), c_in = 1 / sqrt(sigma^2 + sd^2), c_noise = ln(sigma) / 4.
    """

    def __init__(
        self, net: nn.Module, shape: tuple[int, int, int], sigma_data: float = 0.5,
        sigma_max: float = 80.0,
    ) -> None:  # fmt: skip
        super().__init__(VE(sigma_max), shape)
        self.net = net
        self.sigma_data = sigma_data

    def extra_repr(self) -> str:
        """What modules alone do not show."""
        return f"sigma_data={self.sigma_data}"

    def fingerprinted(self) -> dict[str, Any]:
        """See `adpur.models.checkpoints.fingerprint`."""
        return {"sigma_data": self.sigma_data}

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """See the class."""
        sigma, sd = self.schedule.sigma(t), self.sigma_data
        norm = (sigma**2 + sd**2).sqrt()
        label = self.schedule.label(t).to(x_t)
        out = self.net(expand(1 / norm, x_t) * x_t, label)
        wide = torch.promote_types(out.dtype, torch.float32)
        x_t, out = x_t.to(wide), out.to(wide)
        return expand((sd / norm) ** 2, x_t) * x_t + expand(sigma * sd / norm, x_t) * out


class ConsistencyDenoiser(Denoiser):
    """A consistency model f(x; sigma) as a denoiser (Song et al. 2023, section 3 and appendix C).

    It is trained to give, from any point of a trajectory of EDM's probability flow, where that
    trajectory ends: a sample, where EDM's denoiser gives a mean. f = c_skip x + c_out F(c_in x;
    250 ln sigma) with c_skip = sd^2 / ((sigma - sigma_min)^2 + sd^2), c_out = (sigma - sigma_min)
    sd / sqrt(sigma^2 + sd^2), c_in = 1 / sqrt(sigma^2 + sd^2); it is the identity at sigma_min and
    below. What it gives is bounded by no one: diffusers' `clip_denoised` belongs to a sampler.

    Args:
        net: the raw network F(x, label).
        shape: (C, H, W) of the images.
        sigma_min, sigma_max, sigma_data: of its training; the defaults are the paper's.
    """

    def __init__(
        self, net: nn.Module, shape: tuple[int, int, int], sigma_min: float = 0.002,
        sigma_max: float = 80.0, sigma_data: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__(VE(sigma_max), shape)
        self.net = net
        self.sigma_min, self.sigma_data = sigma_min, sigma_data

    def extra_repr(self) -> str:
        """What modules alone do not show."""
        return f"sigma_min={self.sigma_min}, sigma_data={self.sigma_data}"

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """See the class."""
        sigma, sd = self.schedule.sigma(t).clamp_min(self.sigma_min), self.sigma_data
        norm, above = (sigma**2 + sd**2).sqrt(), sigma - self.sigma_min
        label = (1000 * self.schedule.label(sigma)).to(x_t)
        out: Tensor = self.net(expand(1 / norm, x_t) * x_t, label)[:, : x_t.shape[1]]
        wide = torch.promote_types(out.dtype, torch.float32)
        x_t, out = x_t.to(wide), out.to(wide)
        skip = expand(sd**2 / (above**2 + sd**2), x_t)
        return skip * x_t + expand(above * sd / norm, x_t) * out


class DiffusersNet(nn.Module):
    """A diffusers `UNet2DModel` as a plain `net(x, label) -> Tensor`.

    Args:
        unet: the model.
        label_scale: it is told the label times this. improved-diffusion's networks count 1000 times
            however many they were trained on: 1000 / T there (`rescale_timesteps`).
    """

    def __init__(self, unet: nn.Module, label_scale: float = 1.0) -> None:
        super().__init__()
        self.unet = unet
        self.label_scale = label_scale

    def extra_repr(self) -> str:
        """The constructor's arguments, which modules alone do not show."""
        told = json.dumps(self._config, sort_keys=True)
        # what was hashed before there was a scale stays as it was
        return told if self.label_scale == 1 else f"{told}, label_scale={self.label_scale}"

    def fingerprinted(self) -> dict[str, Any]:
        """The arguments that are not at their default: a release of diffusers may add some."""
        known = inspect.signature(type(self.unet).__init__).parameters
        config = _json(self._config).items()
        told = {k: v for k, v in config if k not in known or v != _json(known[k].default)}
        return told if self.label_scale == 1 else told | {"label_scale": self.label_scale}

    @property
    def _config(self) -> dict[str, Any]:
        """The model's constructor arguments, without what diffusers adds."""
        config = dict(self.unet.config)  # type: ignore[arg-type]
        return {k: v for k, v in config.items() if k[0] != "_"}

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        """The model's sample, without its output class."""
        label = label if self.label_scale == 1 else self.label_scale * label
        out: Tensor = self.unet(x, label, return_dict=False)[0]
        return out


def _json(default: Any) -> Any:
    """A default as JSON would hold it: a tuple is a list; none at all equals nothing."""
    return json.loads(json.dumps(default, default=repr))
