"""Logits of whatever a classifier answers with."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adpur.errors import ConfigError


class LogitsError(ConfigError):
    """A classifier's answer that no number can be made of."""


def asked(net: Any, image: Tensor, *keys: Any) -> Tensor:
    """`net`'s logits `(B, classes)` of a copy of the images `(B, C, H, W)`.

    A copy, for networks that normalise in place would change the caller's images, and so the data
    set itself. Nothing here looks at a value: no accelerator is waited for.
    """
    return logits_of(net(image.clone(), *keys), image)


def logits_of(answer: Any, image: Tensor) -> Tensor:
    """Logits `(B, classes)` on the images' device: a tensor or array as it is, or the one in a
    `ModelOutput`, dict, tuple or list.

    Raises:
        LogitsError: where there is none, or more than one.
    """
    if isinstance(answer, Tensor):
        found = answer
    else:
        named = _named(answer)
        candidates = [named] if named is not None else list(_tensors(answer, len(image)))
        if len(candidates) != 1:
            raise _refusal(answer, len(image))
        found = candidates[0]
    if found.dim() != 2 or len(found) != len(image) or not found.is_floating_point():
        raise _refusal(answer, len(image))
    if found.shape[1] < 2:
        raise LogitsError(
            "expected logits (B, classes) of two or more classes, got one a image; a binary "
            "classifier's z is torch.cat((torch.zeros_like(z), z), 1)"
        )
    return found.to(image.device)


def _named(answer: Any) -> Tensor | None:
    """What it calls logits, as transformers' `ModelOutput` and torchvision's Inception do."""
    held = answer.get("logits") if isinstance(answer, Mapping) else getattr(answer, "logits", None)
    return held if isinstance(held, Tensor) else None


def _tensors(answer: Any, images: int) -> Iterator[Tensor]:
    """Everything in it that could be logits of so many images."""
    if isinstance(answer, np.ndarray):
        answer = torch.from_numpy(answer)
    if isinstance(answer, Tensor):
        if answer.dim() == 2 and len(answer) == images and answer.is_floating_point():
            yield answer
    elif isinstance(answer, Mapping | tuple | list):
        for part in answer.values() if isinstance(answer, Mapping) else answer:
            yield from _tensors(part, images)


def _refusal(answer: Any, images: int) -> LogitsError:
    told = _told(answer)
    hint = "wrap the classifier in a module that returns them"
    if isinstance(answer, Tensor | np.ndarray) and len(answer.shape) == 1:
        hint = "class numbers are not enough: return torch.nn.functional.one_hot(...).float()"
    return LogitsError(
        f"expected logits, one floating tensor ({images}, classes), got {told}; {hint}"
    )


def _told(answer: Any) -> str:
    """An answer in words, such as `dict of features (8, 64), logits (8, 10)`."""
    if isinstance(answer, Tensor | np.ndarray):
        return f"{str(answer.dtype).removeprefix('torch.')} {tuple(answer.shape)}"
    if isinstance(answer, Mapping):
        parts = [f"{key} {_told(value)}" for key, value in list(answer.items())[:4]]
    elif isinstance(answer, tuple | list):
        parts = [_told(value) for value in answer[:4]]
    else:
        return type(answer).__name__
    return f"{type(answer).__name__} of {', '.join(parts) or 'nothing'}"


def refuse_non_finite(logits: Tensor, index: Tensor) -> None:
    """Refuse logits `(draws * B, classes)` of dataset rows `(B,)` that are NaN or infinite.

    An argmax would call them class 0, and robust wherever that is the label. One look at the
    device for all images of a judgement.
    """
    good = torch.isfinite(logits).all(1).view(-1, len(index)).all(0).tolist()
    if bad := [row for row, fine in zip(index.tolist(), good, strict=True) if not fine]:
        told = ", ".join(map(str, bad[:8])) + (", ..." if len(bad) > 8 else "")
        raise LogitsError(
            f"the classifier's logits are NaN or infinite on {len(bad)} image(s), dataset rows "
            f"{told}; no class can be read off them: mend the network (log(0), 0/0, overflow)"
        )
