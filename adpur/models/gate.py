"""The first look at a classifier, before hours are spent on it."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from adpur.errors import ConfigError
from adpur.keyed.noise import Noise, Stream
from adpur.keyed.rows import in_calls
from adpur.models.keyed import seeded
from adpur.models.logits import refuse_non_finite
from adpur.models.networks import Networks

LIBRARIES = ("site-packages", str(Path(__file__).parents[1]))
"""Where code is that no user wrote."""

MATES = 1e-4
"""Share of the largest logit by which batch mates may move another: rounding moves 1e-6."""


class Seen(NamedTuple):
    """What a first look found: how many classes, and why no gradient reaches the images, if so."""

    classes: int
    blind: str


def first_look(networks: Networks, x: Tensor, index: Tensor, rows: int) -> Seen:
    """Ask a classifier for the logits of one image `(1, C, H, W)` of dataset row `(1,)`.

    It is called with R = `rows` images, as it always will be. Five calls and one backward pass;
    random generators are left as they were.

    Raises:
        ConfigError: where it cannot take the image, answers with something that is no logits, or
            lets batch mates decide.
    """
    with torch.inference_mode(False), seeded(0, x.device):
        x = x.detach().clone()
        logits = _tried(lambda: logits_in_calls(networks, x, _keys(x), rows), x, rows)
        refuse_non_finite(logits, index)
        refuse_batch_mates(networks, x, rows)
        return Seen(logits.shape[1], lost(networks, x, rows))


@torch.no_grad()
def logits_in_calls(networks: Networks, x: Tensor, noise: Noise, rows: int) -> Tensor:
    """Logits `(B, classes)` of images, asked for in calls of exactly R rows."""

    def work(i: Tensor) -> list[Tensor]:
        i = i.to(x.device)
        return [networks.classify(x[i], noise[i])]

    return in_calls(work, len(x), rows)[0]


def refuse_batch_mates(networks: Networks, x: Tensor, rows: int) -> None:
    """Refuse a classifier whose logits of an image depend on the other images of the call.

    The image `x[:1]` is first and last among its like, and among its negatives: what it shares a
    call with must not matter. One that draws from no key says so elsewhere: `Defense.random`.
    """
    if rows == 1:
        return
    one = x[:1]
    # leaving inference mode turns gradients on
    with torch.inference_mode(False), torch.no_grad(), seeded(0, x.device):
        like = one.expand(rows, -1, -1, -1)
        among = 1 - like
        ends = torch.tensor([0, rows - 1], device=x.device)
        alone, again = (networks.classify(like, _keys(like))[ends] for _ in range(2))
        if not torch.equal(alone, again):
            return
        moved = torch.stack([
            networks.classify(_placed(among, one, end), _keys(like))[end]
            for end in ends.tolist()
        ])  # fmt: skip
    error = float((moved - alone).abs().max() / alone.abs().max().clamp_min(1e-30))
    if error > MATES:
        raise ConfigError(
            f"the classifier's logits of an image move by {error:.1%} with the other images of "
            f"its batch{_culprit(networks.classifier)}: no number could be repeated. Take "
            "statistics from training, or `rows: 1`, one image a call"
        )


def lost(networks: Networks, x: Tensor, rows: int) -> str:
    """Why no gradient of the logits reaches the images; empty where it does.

    Looked for at an image `x[:1]`, at its negative and at noise: a network that is flat at all
    three has a step that lets no gradient through.
    """
    keys = _keys(x[:1])
    noise = keys.uniform(x[:1], Stream.FORWARD)
    three = torch.cat((noise, x[:1], 1 - x[:1]))
    some = three[torch.arange(rows, device=x.device) % 3]
    with torch.inference_mode(False), torch.enable_grad(), seeded(0, x.device):
        image = some.clone().requires_grad_()
        try:
            logits = networks.classify(image, _keys(image))
        except RuntimeError as error:  # x.numpy() of what is to be differentiated
            return f"it stops where the classifier raises: {_first_line(error)}"
        if not logits.requires_grad:
            return "the logits carry none (torch.no_grad, detach, numpy, PIL or argmax inside)"
        weight = torch.arange(logits.shape[1], device=logits.device).to(logits.dtype).cos()
        try:
            (grad,) = torch.autograd.grad((logits * weight).sum(), image, allow_unused=True)
        except RuntimeError as error:
            return f"its backward pass raises: {_first_line(error)}"
    if grad is None:
        return "the logits do not depend on the images through anything differentiable"
    if not grad.any():
        return "it is zero everywhere (rounding, a threshold or argmax inside)"
    return ""


@contextmanager
def named(what: str) -> Iterator[None]:
    """Begin a refusal inside with what it is about, such as `row 'd'`."""
    try:
        yield
    except ConfigError as error:
        if str(error).startswith(what):
            raise
        raise type(error)(f"{what}: {error}") from error


def _tried(answer: Callable[[], Tensor], x: Tensor, rows: int) -> Tensor:
    """A first answer; a foreign network's own exception becomes one line that says where."""
    try:
        return answer()
    except (ConfigError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if not any(part in f.filename for part in LIBRARIES)]
        where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
        raise ConfigError(
            f"the classifier cannot take {rows} images {tuple(x.shape[1:])} at once: "
            f"{type(error).__name__}: {_first_line(error)}{where}"
        ) from error


def _keys(x: Tensor) -> Noise:
    """The same key for every row."""
    return Noise(torch.zeros(len(x), dtype=torch.int64, device=x.device))


def _placed(among: Tensor, one: Tensor, place: int) -> Tensor:
    """`among` with the image `one` at a place."""
    placed = among.clone()
    placed[place] = one[0]
    return placed


def _culprit(net: nn.Module) -> str:
    """The first layer that is known to do so."""
    for name, part in net.named_modules():
        normalises = isinstance(part, nn.modules.batchnorm._BatchNorm)
        if normalises and (part.training or part.running_mean is None):
            kind = "in training mode" if part.training else "without running statistics"
            return f" ({type(part).__name__} {name!r} is {kind})"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
