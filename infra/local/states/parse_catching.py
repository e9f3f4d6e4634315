"""Reads Retry and Catch."""

from __future__ import annotations

from .definition import Catcher, Retrier
from .errors import ALL
from .reader import ERROR_OUTPUT, MAX_SECONDS, Reader

MAX_DELAY = 31_622_399
KNOWN_ERRORS = frozenset({
    "ALL", "BranchFailed", "DataLimitExceeded", "ExceedToleratedFailureThreshold", "HeartbeatTimeout",
    "IntrinsicFailure", "ItemReaderFailed", "NoChoiceMatched", "Permissions", "QueryEvaluationError",
    "ResultWriterFailed", "Runtime", "TaskFailed", "Timeout",
})  # fmt: skip


def read_retry(reader: Reader) -> tuple[Retrier, ...]:
    """The member Retry of a state."""
    entries = reader.entries("Retry", "retrier")
    return tuple(_retrier(entry, entry is entries[-1]) for entry in entries)


def read_catch(reader: Reader) -> tuple[Catcher, ...]:
    """The member Catch of a state."""
    entries = reader.entries("Catch", "catcher")
    return tuple(_catcher(entry, entry is entries[-1]) for entry in entries)


def _retrier(entry: Reader, last: bool) -> Retrier:
    errors = _errors(entry, last)
    interval = entry.integer("IntervalSeconds", 1, 1, MAX_SECONDS)
    backoff = float(entry.get("BackoffRate", (int, float), 2.0))
    if backoff < 1:
        entry.problem(f"{entry.owner}: 'BackoffRate' must be at least 1.", "BackoffRate")
    max_delay = None
    if entry.has("MaxDelaySeconds"):
        max_delay = entry.integer("MaxDelaySeconds", MAX_DELAY, interval + 1, MAX_DELAY)
    jitter = entry.get("JitterStrategy", str, "NONE")
    if jitter not in ("FULL", "NONE"):
        entry.problem(f"{entry.owner}: 'JitterStrategy' is FULL or NONE.", "JitterStrategy")
    attempts = entry.integer("MaxAttempts", 3, 0, MAX_SECONDS)
    entry.finish()
    return Retrier(errors, interval, attempts, backoff, max_delay, jitter == "FULL")


def _catcher(entry: Reader, last: bool) -> Catcher:
    errors = _errors(entry, last)
    target = entry.get("Next", str, "", required=True)
    catcher = Catcher(errors, target, entry.template("Output", ERROR_OUTPUT), entry.assignments(ERROR_OUTPUT))
    entry.finish()
    return catcher


def _errors(entry: Reader, last: bool) -> tuple[str, ...]:
    names = entry.get("ErrorEquals", list, [], required=True)
    if not names or not all(isinstance(name, str) for name in names):
        entry.problem(f"{entry.owner}: 'ErrorEquals' must be a list of error names.", "ErrorEquals")
        return ()
    for name in names:
        if name.startswith("States.") and name.removeprefix("States.") not in KNOWN_ERRORS:
            entry.problem(f"{entry.owner}: '{name}' is not an error name of the States Language.", "ErrorEquals")
    if ALL in names and (len(names) > 1 or not last):
        entry.problem(f"{entry.owner}: '{ALL}' must stand alone and in the last entry.", "ErrorEquals")
    return tuple(names)
