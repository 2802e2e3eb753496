"""`vary:` in a test config: one row of the table for each value of a row's settings."""

import difflib
import itertools
from copy import deepcopy
from typing import Any

from adpur.errors import ConfigError

Vary = dict[str, dict[str, list[Any]]]
"""Row -> setting of its purifier -> values; a dotted setting reaches into a nested one."""


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
        made = {f"{row} {told}": changed for told, changed in _rows(row, defenses[row], settings)}
        named[row] = list(made)
        place = list(defenses).index(row)
        items = list(defenses.items())
        config.model.init_args.defenses = defenses = dict(
            [*items[:place], *made.items(), *items[place + 1 :]]
        )
    for callback in config.trainer.callbacks or []:
        only = getattr(callback.get("init_args"), "only", None)
        if only:
            callback.init_args.only = [n for row in only for n in named.get(row, [row])]


def _rows(row: str, before: Any, settings: dict[str, list[Any]]) -> Any:
    for setting, values in settings.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"vary: {row}.{setting} needs a list of values, got {values!r}")
    for chosen in itertools.product(*settings.values()):
        changed = deepcopy(before)
        for setting, value in zip(settings, chosen, strict=True):
            _set(changed.purifier, setting, value, row)
        told = [f"{s.split('.')[-1]}={_short(v)}" for s, v in zip(settings, chosen, strict=True)]
        yield " ".join(told), changed


def _set(owner: Any, setting: str, value: Any, row: str) -> None:
    first, _, rest = setting.partition(".")
    known = list(owner.init_args.keys()) if hasattr(owner, "init_args") else []
    if first not in known:
        near = difflib.get_close_matches(first, known) or known
        told = ", ".join(near) or "none"
        raise ConfigError(f"vary: {row} has no setting {first!r}; nearest valid: {told}")
    if rest:
        _set(owner.init_args[first], rest, value, row)
    else:
        owner.init_args[first] = value


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
