"""State data: a JSON value with its text, held to the service's payload limit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .errors import DATA_LIMIT_EXCEEDED, StateError

MAX_BYTES = 262_144
NOT_TRUNCATED = {"truncated": False}


class Data(NamedTuple):
    """A JSON value and the text that stands for it in histories and answers."""

    value: Any
    text: str


_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def encode(value: Any) -> str:
    """Compact JSON."""
    return _ENCODER.encode(value)


def to_bytes(text: str) -> bytes:
    """UTF-8, with a replacement for half a surrogate pair, which JSON can hold and UTF-8 cannot."""
    return text.encode("utf-8", "replace")


def too_long(text: str) -> bool:
    """Whether a JSON text exceeds the 256 KiB of state data."""
    return len(text) > MAX_BYTES or (len(text) * 4 > MAX_BYTES and len(to_bytes(text)) > MAX_BYTES)


def limited(value: Any, what: str) -> Data:
    """The value as state data; States.DataLimitExceeded names `what` was too large."""
    text = encode(value)
    if too_long(text):
        raise StateError(
            DATA_LIMIT_EXCEEDED,
            f"The {what} has a size exceeding the maximum number of bytes service limit ({MAX_BYTES}).",
        )
    return Data(value, text)


def entered(name: str, data: Data) -> dict[str, Any]:
    """Details of a StateEntered event."""
    return {"name": name, "input": data.text, "inputDetails": NOT_TRUNCATED}


def exited(name: str, data: Data, assigned: Mapping[str, str]) -> dict[str, Any]:
    """Details of a StateExited event; `assigned` holds JSON texts by variable name."""
    details: dict[str, Any] = {"name": name, "output": data.text, "outputDetails": NOT_TRUNCATED}
    if assigned:
        details |= {"assignedVariables": assigned, "assignedVariablesDetails": NOT_TRUNCATED}
    return details


def epoch(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 timestamp with its offset; ValueError for any other text."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"'{text}' has no offset from UTC")
    return moment.timestamp()


def iso(seconds: float) -> str:
    """An epoch time as the context object writes it, to the millisecond in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
