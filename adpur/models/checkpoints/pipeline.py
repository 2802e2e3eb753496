"""What diffusers writes around a U-Net: the pipeline's index, and the names of older versions."""

import re
from pathlib import Path
from typing import Any

from adpur.errors import ConfigError
from adpur.models.checkpoints.json_file import read_json

INDEX = "model_index.json"
OLD = re.compile(r"(.*attentions\.\d+)\.(query|key|value|proj_attn)\.(weight|bias)")
"""An attention's parameters in U-Nets that were saved before diffusers 0.17 (May 2023)."""
TODAY = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
LATENT = re.compile(
    r"vae|vqvae|vqgan|movq|first_stage.*|.*autoencoder.*|vqmodel|text_encoder.*", re.I
)
"""Parts of a pipeline whose U-Net denoises something else than images, or not from them alone."""


def today(name: str) -> str:
    """The name that today's diffusers gives a stored tensor.

    >>> today("mid_block.attentions.0.proj_attn.bias")
    'mid_block.attentions.0.to_out.0.bias'
    """
    found = OLD.fullmatch(name)
    return f"{found[1]}.{TODAY[found[2]]}.{found[3]}" if found else name


def check_pipeline(folder: Path) -> None:
    """Refuse the pipelines of latent and of text-conditional models, by the part that says so.

    Args:
        folder: a pipeline's, or the folder of a network inside it.
    """
    for home in (folder, folder.parent):
        if (home / INDEX).is_file() and (home == folder or folder.name.startswith("unet")):
            _check_parts(read_json(home / INDEX), home)


def _check_parts(index: dict[str, Any], home: Path) -> None:
    for name, entry in index.items():
        kind = entry[-1] if isinstance(entry, list) and entry else None
        if name.startswith("_") or not isinstance(kind, str):
            continue  # a setting, or a part that is left out: [null, null]
        if LATENT.fullmatch(name) or LATENT.fullmatch(kind):
            raise ConfigError(
                f"{home / INDEX}: expected a pipeline of images, found `{name}` ({kind}): its "
                "U-Net denoises what that part makes of an image, and adpur purifies pixels"
            )
