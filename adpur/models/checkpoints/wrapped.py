"""What trainers and tools wrap around the weights of a network in a checkpoint."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adpur.errors import ConfigError
from adpur.models.checkpoints.unpickle import check_storage

WRAPPERS = ("_orig_mod", "module", "model", "net", "network", "classifier", "backbone", "encoder")
"""Names under which torch.compile, DataParallel, Lightning and others keep the network itself."""
AVERAGED = ("ema", "averag", "shadow", "teacher")
"""What the name of a set of averaged weights holds."""


@dataclass(frozen=True)
class Weights:
    """A network's state dict, and what was done to find it.

    Attributes:
        state: tensors by the network's own names.
        notes: which set was taken of several, and what was taken off the names.
    """

    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


def find_state(content: Any, where: str, asked: str | None = None) -> Weights:
    """The state dict in a checkpoint's content.

    Where there are several sets, the one that is not averaged is taken, `state_dict` first, and the
    notes name the others.

    Args:
        content: what the file holds.
        where: the file, for messages.
        asked: the name of the set to take.

    Raises:
        ConfigError: where there is no set of that name.
    """
    sets = dict(_sets(content))
    if asked is not None and asked not in sets:
        have = ", ".join(map(repr, sets)) or "none"
        raise ConfigError(f"{where}: expected a set of weights {asked!r}, found {have}")
    if not sets:
        return Weights({})
    name = asked if asked is not None else min(sets, key=_order)
    check_storage(sets[name], where)
    state, prefix = _bare(sets[name])
    notes = []
    if len(sets) > 1 or name:
        others = ", ".join(f"`{other}`" for other in sets if other != name)
        beside = f"; {others} is there too, and was not taken (--weights NAME)" if others else ""
        notes.append(f"weights: `{name}`{beside}")
    if prefix:
        notes.append(f"taken off every name: `{prefix}`")
    return Weights(state, tuple(notes))


def _sets(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The sets of tensors in a checkpoint by their key; a plain state dict is the set ""."""
    if not isinstance(content, Mapping):
        return
    own = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    nested = {str(k): v for k, v in content.items() if isinstance(v, Mapping)}
    if own and not any(_state(v) for v in nested.values()):
        yield from _siblings(own)
    for name, value in nested.items():
        if state := _state(value):
            for part, tensors in _siblings(state):
                yield (f"{name}.{part}" if part else name), tensors


def _state(value: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Its tensors, if they are a network's: several, or under names of modules."""
    found = {str(k): v for k, v in value.items() if isinstance(v, Tensor)}
    return found if any("." in name for name in found) else {}


def _siblings(state: dict[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """A state dict that holds one network twice, as `model.` and `ema_model.`, is two sets."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        head, _, rest = name.partition(".")
        groups.setdefault(head, {})[rest] = value
    twins = [head for head in groups if _averaged(head) and "" not in groups[head]]
    plain = [
        h for h in groups for twin in twins if h != twin and groups[h].keys() == groups[twin].keys()
    ]
    if twins and plain:
        yield plain[0], groups[plain[0]]
        yield from ((twin, groups[twin]) for twin in twins)
    else:
        yield "", state


def _averaged(name: str) -> bool:
    return any(word in name.lower() for word in AVERAGED)


def _order(name: str) -> tuple[bool, int]:
    """Raw weights before averaged ones; the usual names first."""
    usual = ("", "state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
    return _averaged(name), usual.index(name) if name in usual else len(usual)


def _bare(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """The state without what every name begins with, and that beginning.

    Counters beside a wrapped network (`n_averaged` of torch's AveragedModel) have no dot.
    """
    prefix = ""
    while True:
        inner = {k: v for k, v in state.items() if "." in k}
        heads = {k.partition(".")[0] for k in inner}
        lone = len(heads) == 1 and all(v.ndim == 0 for k, v in state.items() if k not in inner)
        if not lone or not heads <= set(WRAPPERS):
            return state, prefix
        (head,) = heads
        state, prefix = {k.partition(".")[2]: v for k, v in inner.items()}, f"{prefix}{head}."
