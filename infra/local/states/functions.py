"""The functions Step Functions adds to JSONata, and the ones whose library version is not good enough here.

`$now` and `$millis` are replaced because the library keeps one timestamp for all expressions of a thread.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

from jsonata.functions import Functions

from .values import NULL, to_jsonata

_HASHES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


def _as_list(value: Any) -> list[Any] | None:
    if value is None:
        return None
    return list(value) if isinstance(value, list) else [value]


def partition(array: Any = None, size: Any = None) -> list[list[Any]] | None:
    """`array` cut into lists of `size`; the last one may be shorter."""
    items = _as_list(array)
    if not items or size is None or int(size) < 1:
        return None
    step = int(size)
    return [items[start : start + step] for start in range(0, len(items), step)]


def range_(start: Any = None, end: Any = None, step: Any = None) -> Any:
    """The numbers from `start` to `end`, both included, `step` apart."""
    if start is None or end is None or not step or not int(step):
        return None
    first, last, stride = int(start), int(end), int(step)
    numbers = list(range(first, last + (1 if stride > 0 else -1), stride))
    if not numbers:
        return None
    return numbers[0] if len(numbers) == 1 else numbers


def hash_(text: Any = None, algorithm: Any = None) -> str | None:
    """The hex digest of a text."""
    if text is None or algorithm is None:
        return None
    if algorithm not in _HASHES:
        raise ValueError(f"Unsupported hash algorithm: {algorithm}")
    return hashlib.new(_HASHES[algorithm], str(text).encode()).hexdigest()


def random_(seed: Any = None) -> float:
    """A number in [0, 1), the same one for the same seed."""
    return random.random() if seed is None else random.Random(int(seed)).random()


def uuid_() -> str:
    """A version 4 UUID."""
    return str(uuid.uuid4())


def parse(text: Any = None) -> Any:
    """The value of a JSON text."""
    if text is None:
        return None
    return to_jsonata(json.loads(text))


def now(picture: Any = None, timezone: Any = None) -> Any:
    """The present time, ISO 8601 in UTC unless a picture says otherwise."""
    return Functions.datetime_from_millis(millis(), picture, timezone)


def millis() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _null_safe(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        return function(*(None if argument is NULL else argument for argument in arguments))

    return call


_OWN: dict[str, Callable[..., Any]] = {
    "partition": partition,
    "range": range_,
    "hash": hash_,
    "random": random_,
    "uuid": uuid_,
    "parse": parse,
    "now": now,
    "millis": millis,
}
FUNCTIONS = {name: _null_safe(function) for name, function in _OWN.items()}
