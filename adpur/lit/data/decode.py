"""One image file as pixels, the same for a data set and for `adpur predict`."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adpur.errors import ConfigError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What an image file's name ends in, as torchvision's `ImageFolder` has them."""

LUMINANCE = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), PIL's too."""

DEEP = 65_535
"""White in an image of 16 bits a channel."""


def is_image(file: Path) -> bool:
    """Whether a name is an image's; `._x.png`, which macOS leaves beside `x.png`, is none."""
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".")


def opened(file: Path, grey: bool, upright: bool, held: bytes | None = None) -> Any:
    """A PIL image of 8 bits a channel, or a tensor `(C, H, W)` in [0, 1] of a deeper one.

    One or three channels. 16 bits are parts of 65,535; where it is transparent, white shows; a
    palette is looked up; CMYK is converted as PIL does.

    Args:
        file: the image.
        grey: one channel instead of three.
        upright: turn it as its EXIF orientation says.
        held: what the file holds, where it is in memory; `file` is its name then.

    Raises:
        ConfigError: where the file is no image, is cut short, or has pixels of unknown scale.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(file if held is None else io.BytesIO(held)) as image:
            if (deep := _deep(file, image, held)) is not None:
                turned = _turned(deep, image.getexif().get(0x0112, 1)) if upright else deep
                return _in_channels(turned, grey)
            if upright and image.getexif().get(0x0112, 1) != 1:
                return _eight_bits(ImageOps.exif_transpose(image), grey)
            return _eight_bits(image, grey)
    except ConfigError:
        raise
    except Exception as error:  # each format of PIL's has exceptions of its own
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{file} cannot be decoded ({told}); copy it again") from error


def _eight_bits(image: Any, grey: bool) -> Any:
    """The image in its mode; what is transparent lies on white, as a viewer shows it."""
    from PIL import Image

    mode = "L" if grey else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    image = image.convert("RGBA")
    if image.getextrema()[3][0] == 255:  # nothing shows through
        return image.convert(mode)
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert(mode)


def _deep(file: Path, image: Any, held: bytes | None) -> Tensor | None:
    """Pixels `(C, H, W)` in [0, 1] of an image with more than 8 bits a channel, else None."""
    if image.format == "PNG" and _png_bits(file, held) == 16:
        # PIL would cut colours to 8 bits
        from torchvision.io import ImageReadMode, decode_image

        coded = torch.frombuffer(bytearray(held or file.read_bytes()), dtype=torch.uint8)
        return decode_image(coded, ImageReadMode.UNCHANGED).float() / DEEP
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return torch.from_numpy(np.asarray(image).astype(np.float32) / DEEP)[None]
    if image.mode not in ("I", "F"):
        return None
    pixels = torch.from_numpy(np.asarray(image).astype(np.float32))[None]
    if image.mode == "F" and pixels.min() >= 0 and pixels.max() <= 1:
        return pixels
    kind = "integers of 32 bits" if image.mode == "I" else "floats beyond [0, 1]"
    raise ConfigError(
        f"{file} holds {kind}, and not what white is; save it with 8 or 16 bits a channel"
    )


def _png_bits(file: Path, held: bytes | None) -> int:
    """Bits a channel, from the header that every PNG begins with."""
    if held is not None:
        return held[24]
    with file.open("rb") as stream:
        return stream.read(25)[24]


def _in_channels(x: Tensor, grey: bool) -> Tensor:
    """1 to 4 channels, the last of 2 or 4 being alpha, as 1 or 3."""
    if len(x) in (2, 4):
        colour, alpha = x[:-1], x[-1:]
        x = colour * alpha + (1 - alpha)
    if grey and len(x) == 3:
        return (x * torch.tensor(LUMINANCE).view(3, 1, 1)).sum(0, keepdim=True)
    return x if grey else x.expand(3, -1, -1)


def _turned(x: Tensor, orientation: int) -> Tensor:
    """`(C, H, W)` as EXIF's orientation 1 to 8 says, `ImageOps.exif_transpose` for a tensor."""
    if orientation in (5, 6, 7, 8):
        x = x.transpose(1, 2)
    flips = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}
    return x.flip(flips.get(orientation, []))
