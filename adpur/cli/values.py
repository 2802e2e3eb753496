"""YAML as adpur reads it."""

import re
from typing import Any

from jsonargparse import get_loader

FRACTION = re.compile(r"-?\d+(\.\d+)?/\d+")


def load_yaml(text: str) -> Any:
    """YAML in which 8/255 is a number.

    >>> load_yaml("{eps: 8/255, file: a/b}")
    {'eps': 0.03137254901960784, 'file': 'a/b'}
    """
    return _with_fractions(get_loader("yaml")(text))


def _with_fractions(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _with_fractions(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_fractions(v) for v in value]
    if isinstance(value, str) and FRACTION.fullmatch(value):
        top, bottom = value.split("/")
        return float(top) / float(bottom)
    return value
