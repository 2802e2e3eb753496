"""timm's networks by name, with the normalisation and image size they were trained with."""

from pathlib import Path
from typing import Any

from adpur.errors import ConfigError
from adpur.models.checkpoints.files import filled
from adpur.models.checkpoints.zoo import load_denoiser
from adpur.models.classifiers import Classifier
from adpur.models.networks import Networks

FILE = "model.safetensors"


def timm_networks(name: str, weights: str | None = None, denoiser: str | None = None) -> Networks:
    """One of timm's networks as the classifier, with a denoiser.

    Args:
        name: as timm has it, with the weights' tag: `resnet50.a1_in1k`.
        weights: see `timm_classifier`.
        denoiser: a diffusion model's weights folder; None for the undefended classifier.
    """
    return Networks(timm_classifier(name, weights), load_denoiser(denoiser) if denoiser else None)


def timm_classifier(name: str, weights: str | None = None) -> Classifier:
    """One of timm's networks by name, with its own data config: image size, mean and std.

    Args:
        name: as timm has it, with the weights' tag: `resnet50.a1_in1k`.
        weights: a safetensors file of its state dict; by default what huggingface_hub has in its
            cache. Nothing is fetched.

    Raises:
        ConfigError: where timm does not know the name, or its weights are not here.
    """
    import timm
    from timm.data import resolve_model_data_config

    try:
        net: Any = timm.create_model(name, pretrained=False)
    except Exception as error:  # an unknown name, an unknown tag, a missing library
        near = ", ".join(timm.list_models(f"{name.split('.')[0][:6]}*", pretrained=True)[:5])
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"timm:{name}: {told}; near: {near or 'none'}") from error
    file = Path(weights).expanduser() if weights else _cached(name, net.pretrained_cfg)
    net = filled(lambda: timm.create_model(name, pretrained=False), file, {})
    config = resolve_model_data_config(net)
    return Classifier(net, tuple(config["input_size"]), config["mean"], config["std"])


def _cached(name: str, config: dict[str, Any]) -> Path:
    """The weights in huggingface_hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    source = config.get("hf_hub_id")
    found = try_to_load_from_cache(source, FILE) if source else None
    if not isinstance(found, str):
        raise ConfigError(
            f"timm:{name}: its weights ({source or 'timm names no source'}) are not in "
            "huggingface_hub's cache, and nothing is fetched unasked; once, where there is a "
            f"network: python -c \"import timm; timm.create_model('{name}', pretrained=True)\""
        )
    return Path(found)
