"""Some rows of a test config (`only`), and one row for each value of a setting (`vary`)."""

import difflib
import itertools
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from adpur.errors import ConfigError

Vary = dict[str, dict[str, list[Any]]]
"""Row -> setting -> values. A setting is the purifier's; a dotted one reaches into a nested one;
`ensemble.votes` and `network` are the row's own.
"""


def choose(config: Any, rows: list[str]) -> set[str]:
    """Keep some rows of a parsed config, and the blocks that attack them; the other rows' names."""
    defenses = config.model.init_args.defenses
    for row in rows:
        if row not in defenses:
            near = difflib.get_close_matches(row, defenses) or list(defenses)
            raise ConfigError(f"only: no row {row!r}; nearest: {', '.join(near)}")
    config.model.init_args.defenses = {row: defenses[row] for row in rows}
    kept = []
    for callback in config.trainer.callbacks or []:
        if named := _named(callback):
            callback.init_args.only = [row for row in named if row in rows]
        if not named or callback.init_args.only:
            kept.append(callback)
    config.trainer.callbacks = kept
    return set(defenses) - set(rows)


def expand(config: Any, vary: Vary) -> None:
    """Replace each varied row of a parsed config by one row a combination, wherever it is named.

    `{diffpure: {t: [50, 100]}}` makes rows `diffpure t=50` and `diffpure t=100`; a block's `only:
    [diffpure]` then means both.
    """
    defenses = config.model.init_args.defenses
    named: dict[str, list[str]] = {}
    for row, settings in vary.items():
        if row not in defenses:
            raise ConfigError(f"vary: no row {row!r}; there is: {', '.join(defenses)}")
        rows = [(f"{row} {told}", new) for told, new in _rows(row, defenses[row], settings)]
        made = dict(rows)
        if len(made) < len(rows) or made.keys() & defenses.keys():
            raise ConfigError(
                f"vary: two rows would be named alike: {', '.join(n for n, _ in rows)}"
            )
        named[row] = list(made)
        place = list(defenses).index(row)
        items = list(defenses.items())
        config.model.init_args.defenses = defenses = dict(
            [*items[:place], *made.items(), *items[place + 1 :]]
        )
    for callback in config.trainer.callbacks or []:
        if only := _named(callback):
            callback.init_args.only = [n for row in only for n in named.get(row, [row])]


def _named(callback: Any) -> list[str]:
    """The rows a block names; empty if it attacks all, or is no block."""
    return getattr(callback.get("init_args"), "only", None) or []


def _rows(row: str, before: Any, settings: dict[str, list[Any]]) -> Iterator[tuple[str, Any]]:
    for setting, values in settings.items():
        if not values:
            raise ConfigError(f"vary: {row}.{setting} needs at least one value")
    for chosen in itertools.product(*settings.values()):
        changed = deepcopy(before)
        for setting, value in zip(settings, chosen, strict=True):
            _set(_owner(changed, setting), setting, value, row)
        told = [f"{s.split('.')[-1]}={_short(v)}" for s, v in zip(settings, chosen, strict=True)]
        yield " ".join(told), changed


def _owner(row: Any, setting: str) -> Any:
    """Settings are the purifier's, but for those that begin with `ensemble` or `network`."""
    return row if setting.split(".")[0] in ("ensemble", "network") else row.purifier


def _set(owner: Any, setting: str, value: Any, row: str) -> None:
    """Set a dotted setting of an object's arguments, or of the row itself."""
    first, _, rest = setting.partition(".")
    arguments = owner.get("init_args") if hasattr(owner, "class_path") else owner
    known = list(vars(arguments)) if arguments is not None else []
    if first not in known:
        near = difflib.get_close_matches(first, known) or known
        told = ", ".join(near) or f"none; write {setting.split('.')[0]} out in the row first"
        raise ConfigError(f"vary: {row} has no setting {first!r}; nearest valid: {told}")
    if not rest:
        arguments[first] = value
    elif hasattr(arguments[first], "class_path"):
        _set(arguments[first], rest, value, row)
    else:
        raise ConfigError(
            f"vary: {row}.{first} is {arguments[first]!r} and has no {rest!r}; "
            f"write its class_path in the row, or vary {first} itself"
        )


def _short(value: Any) -> str:
    """A value as it stands in a row's name."""
    if isinstance(value, float):
        return f"{value:g}"
    value = vars(value) if hasattr(value, "class_path") else value
    if isinstance(value, dict) and "class_path" in value:
        given = value.get("init_args") or {}
        inner = ", ".join(f"{k}={_short(v)}" for k, v in dict(given).items())
        return value["class_path"].split(".")[-1] + (f"({inner})" if inner else "")
    return str(value)
