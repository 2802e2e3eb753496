"""JSON beside weights: configs, which anybody may have written."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adpur.errors import ConfigError

LIMIT = 2**25
"""Bytes of the largest JSON that is read; the index of a network in shards takes a few MB."""
LARGEST = 2**63
"""Of a whole number in a config."""


def read_json(file: Path, finite: bool = True) -> dict[str, Any]:
    """The object in a JSON file, or the one-line reason why not.

    Args:
        file: where it is.
        finite: refuse NaN and infinities, which Python's JSON reads and writes; samplers of
            diffusers have options that are -Infinity.
    """
    try:
        if file.stat().st_size > LIMIT:
            raise ConfigError(f"{file}: expected a config, found {file.stat().st_size:,} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{file.parent}: expected a {file.name}, found none") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text ({error}); save it as UTF-8") from error
    except RecursionError:
        raise ConfigError(f"{file}: not a config: its lists are nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{file}: not valid JSON ({error})") from error
    except ValueError as error:  # integers of more digits than Python converts
        raise ConfigError(f"{file}: holds a number beyond any use ({error})") from error
    if not isinstance(content, dict):
        found = {type(None): "null", list: "a list", str: "text"}.get(type(content), "a number")
        raise ConfigError(f"{file}: expected a JSON object {{...}}, found {found}")
    if odd := next(_strange(content, finite), None):
        raise ConfigError(f"{file}: expected numbers that a setting can be, found {odd}")
    return content


def _strange(content: dict[str, Any], finite: bool) -> Iterator[str]:
    """Numbers that no setting can be, with the keys they stand under; not recursive."""
    stack: list[tuple[str, Any]] = [("", content)]
    while stack:
        name, value = stack.pop()
        if isinstance(value, dict):
            stack += [(f"{name}.{k}"[:80].lstrip("."), v) for k, v in value.items()]
        elif isinstance(value, list):
            stack += [(name, v) for v in value]
        elif finite and isinstance(value, float) and not math.isfinite(value):
            yield f"{name}: {value}"
        elif isinstance(value, int) and abs(value) > LARGEST:
            yield f"{name}: a number of {len(str(value))} digits"


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Sorted, one key a line."""
    file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
