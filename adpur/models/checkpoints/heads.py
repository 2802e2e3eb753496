"""What a diffusers network predicts, between its config files and adpur's adapters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from adpur.diffusion.adapters import (
    ConsistencyDenoiser,
    EDMDenoiser,
    EpsDenoiser,
    FlowDenoiser,
    NetDenoiser,
    VDenoiser,
    X0Denoiser,
)
from adpur.diffusion.denoiser import Denoiser
from adpur.diffusion.schedule import VE, RectifiedFlow
from adpur.errors import ConfigError
from adpur.models.checkpoints.scheduler import (
    has_betas,
    load_betas,
    load_continuous,
    load_flow,
    load_range,
    read_scheduler,
)

ADAPTERS: dict[str, type[NetDenoiser]] = {
    "epsilon": EpsDenoiser,
    "v_prediction": VDenoiser,
    "sample": X0Denoiser,
}
"""A scheduler's `prediction_type`, and what brings such a network to x0_hat."""
FLOW = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
)
EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")
CONSISTENCY = "CMStochasticIterativeScheduler"


def denoiser_of(net: nn.Module, shape: tuple[int, int, int], file: Path) -> Denoiser:
    """The network `net(x, label)` of images `shape` under the scheduler config beside it.

    A class with DDPM's betas, flow matching's, EDM's or consistency models'; LinearVP of adpur.

    Raises:
        ConfigError: for every other class, by its name.
    """
    config = read_scheduler(file)
    name = config["_class_name"]
    if name in FLOW or (has_betas(name) and config.get("use_flow_sigmas")):
        return _flow_adapter(config, file)(net, load_flow(config, file), shape)
    if has_betas(name):
        if config.get("timestep_type", "discrete") != "discrete":
            raise ConfigError(
                f"{file}: expected timestep_type 'discrete', found {config['timestep_type']!r:.40}"
            )
        return adapter_of(config, file)(net, load_betas(config, file), shape)
    if name in EDM:
        _only(config, "epsilon", file)
        sigmas = load_range(config, file)
        return EDMDenoiser(net, shape, sigmas["sigma_data"], sigmas["sigma_max"])
    if name == CONSISTENCY:
        return ConsistencyDenoiser(net, shape, **load_range(config, file))
    if name == "LinearVP":
        return EpsDenoiser(net, load_continuous(config, file), shape)
    raise ConfigError(
        f"{file}: expected a scheduler with DDPM's betas (DDPMScheduler, DDIMScheduler, ...), "
        f"{FLOW[0]}, {EDM[0]}, {CONSISTENCY} or LinearVP, found {name!r:.60}, whose network adpur "
        "cannot read"
    )


def adapter_of(scheduler: dict[str, Any], file: Path) -> type[NetDenoiser]:
    """The adapter for the network beside a scheduler config; diffusers' default is epsilon."""
    kind = scheduler.get("prediction_type", "epsilon")
    if not isinstance(kind, str) or kind not in ADAPTERS:
        told = ", ".join(ADAPTERS)
        raise ConfigError(f"{file}: expected prediction_type one of {told}, found {kind!r:.60}")
    return ADAPTERS[kind]


def _flow_adapter(config: dict[str, Any], file: Path) -> type[NetDenoiser]:
    """A flow network predicts its velocity, unless a sampler of other heads says otherwise."""
    kind = config.get("prediction_type", "flow_prediction" if config["_class_name"] in FLOW else "")
    if kind == "flow_prediction":
        return FlowDenoiser
    if kind == "v_prediction":
        raise ConfigError(f"{file}: expected prediction_type 'flow_prediction' on flow sigmas")
    return adapter_of(config, file)


def _only(config: dict[str, Any], kind: str, file: Path) -> None:
    if (found := config.get("prediction_type", kind)) != kind:
        raise ConfigError(f"{file}: expected prediction_type {kind!r}, found {found!r:.60}")


def head_of(denoiser: Denoiser) -> dict[str, Any]:
    """The scheduler's words for a denoiser's head: what it predicts, and whether its variance."""
    schedule = denoiser.schedule
    if isinstance(denoiser, ConsistencyDenoiser):
        return {
            "_class_name": CONSISTENCY, "sigma_min": denoiser.sigma_min, "sigma_max": schedule.end,
            "sigma_data": denoiser.sigma_data,
        }  # fmt: skip
    if isinstance(denoiser, EDMDenoiser) and isinstance(schedule, VE):
        return {
            "_class_name": EDM[0], "prediction_type": "epsilon", "sigma_max": schedule.end,
            "sigma_data": denoiser.sigma_data,
        }  # fmt: skip
    if isinstance(schedule, RectifiedFlow):
        heads: dict[str, type[NetDenoiser]] = {"flow_prediction": FlowDenoiser} | ADAPTERS
        return {
            "_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True,
            "num_train_timesteps": schedule.steps, "prediction_type": _kind(denoiser, heads),
        }  # fmt: skip
    unet: Any = denoiser.net.unet  # type: ignore[union-attr]
    variance = {"variance_type": "learned_range"} if learns_variance(unet.config) else {}
    return {"prediction_type": _kind(denoiser, ADAPTERS), **variance}


def _kind(denoiser: Denoiser, heads: dict[str, type[NetDenoiser]]) -> str:
    kind = next((name for name, adapter in heads.items() if type(denoiser) is adapter), None)
    if kind is None:
        told = ", ".join(adapter.__name__ for adapter in heads.values())
        raise ConfigError(f"expected one of {told} to save, got {type(denoiser).__name__}")
    return kind


def learns_variance(unet: dict[str, Any]) -> bool:
    """Whether half of the output channels are a variance (Nichol & Dhariwal 2021, Eq. 15)."""
    return bool(unet["out_channels"] == 2 * unet["in_channels"])


def check_unet(unet: dict[str, Any], where: Path) -> None:
    """Refuse what no image and time alone determine, or what adpur's times are no labels of.

    Class labels; inputs that the network centres itself; time embeddings other than positional.
    """
    if unet.get("num_class_embeds") or unet.get("class_embed_type"):
        raise ConfigError(f"{where}: expected an unconditional UNet2DModel, found class labels")
    if unet.get("center_input_sample"):
        raise ConfigError(
            f"{where}: expected a network of images in [-1, 1], found center_input_sample true: "
            "it takes [0, 1] plus noise"
        )
    if (kind := unet.get("time_embedding_type", "positional")) != "positional":
        raise ConfigError(
            f"{where}: expected time_embedding_type 'positional', found {kind!r:.40}; networks on "
            "a variance-exploding schedule are read from EDM's and score_sde's own files "
            "(adpur convert)"
        )


def check_outputs(unet: Mapping[str, Any], where: Path) -> None:
    """Refuse outputs other than a prediction alone or with its variance."""
    inner, outer = unet["in_channels"], unet["out_channels"]
    if outer not in (inner, 2 * inner):
        raise ConfigError(
            f"{where}: expected out_channels {inner}, or {2 * inner} with a learned variance, "
            f"found {outer}"
        )
