"""JSON values on their way into and out of the JSONata library, which takes Python's None for undefined."""

from __future__ import annotations

import math
from typing import Any

from jsonata.utils import Utils

NULL = Utils.NULL_VALUE


def to_jsonata(value: Any) -> Any:
    """The value with JSON nulls as the library's null; the same object where there are none."""
    if value is None:
        return NULL
    if isinstance(value, dict):
        converted = {key: to_jsonata(item) for key, item in value.items()}
        return converted if any(converted[key] is not item for key, item in value.items()) else value
    if isinstance(value, list):
        items = [to_jsonata(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    return value


def from_jsonata(value: Any) -> Any:
    """A result as plain JSON values; TypeError when it holds a function."""
    if value is None or value is NULL:
        return None
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        return {key: from_jsonata(item) for key, item in value.items()}
    if isinstance(value, Utils.RangeList):
        return list(range(value.a, value.b + 1))
    if isinstance(value, list):
        return [from_jsonata(item) for item in value]
    raise TypeError("a function is not a JSON value")


def _number(value: float) -> float | int | str:
    """JSON has no literal for these three; the service writes the name JavaScript gives them."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value
