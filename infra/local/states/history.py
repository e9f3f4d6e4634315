"""The events of one execution, as GetExecutionHistory answers them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping
from typing import Any

from .clock import Clock, Scope
from .errors import RUNTIME, ApiError, StateError, Stopped

MAX_EVENTS = 25_000
MAX_PAGE = 1000
DATA_MEMBERS = ("input", "inputDetails", "output", "outputDetails")
_STATE_DETAILS = {"StateEntered": "stateEnteredEventDetails", "StateExited": "stateExitedEventDetails"}


@functools.cache
def details_member(kind: str) -> str:
    """The member of a HistoryEvent that carries the details of an event type."""
    for suffix, member in _STATE_DETAILS.items():
        if kind.endswith(suffix):
            return member
    return f"{kind[0].lower()}{kind[1:]}EventDetails"


class History:
    """Events in order, ids from 1. Safe for the threads of an INLINE Map."""

    def __init__(self, clock: Clock, limit: int = MAX_EVENTS) -> None:
        self._clock = clock
        self._limit = limit
        self._lock = threading.Lock()
        self._events: list[dict[str, Any]] = []

    def add(
        self, kind: str, previous: int, details: Mapping[str, Any] | None = None, scope: Scope | None = None
    ) -> int:
        """Append an event and return its id.

        With a scope, raises Stopped once that scope is cancelled, so that nothing is written behind the end of a
        stopped execution, and States.Runtime when the history is full. The events that close an execution come
        without a scope.
        """
        event: dict[str, Any] = {"type": kind, "previousEventId": previous}
        if details is not None:
            event[details_member(kind)] = details
        with self._lock:
            if scope is not None:
                if scope.cancelled:
                    raise Stopped
                if len(self._events) >= self._limit - 1:
                    text = f"The execution reached the maximum number of history events ({self._limit})."
                    raise StateError(RUNTIME, text)
            event["timestamp"] = self._clock.now()
            event["id"] = len(self._events) + 1
            self._events.append(event)
            return len(self._events)

    def condense(self) -> None:
        """Keep only the first and the last event, to bound the memory of long Map Runs."""
        with self._lock:
            if len(self._events) > 2:
                self._events = [self._events[0], self._events[-1]]

    def events(self) -> list[dict[str, Any]]:
        """All events, oldest first."""
        with self._lock:
            return list(self._events)

    def page(self, size: int, token: str | None, newest_first: bool, with_data: bool) -> dict[str, Any]:
        """One page of GetExecutionHistory."""
        events = self.events()
        if newest_first:
            events.reverse()
        answer = paginate(events, size, token, "events")
        if not with_data:
            answer["events"] = [_without_data(event) for event in answer["events"]]
        return answer


def _without_data(event: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {k: v for k, v in member.items() if k not in DATA_MEMBERS} if isinstance(member, Mapping) else member
        for name, member in event.items()
    }


def paginate(items: list[Any], size: int, token: str | None, member: str) -> dict[str, Any]:
    """`{member: the page, "nextToken": …}`; size 0 means the largest page."""
    if not 0 <= size <= MAX_PAGE:
        raise ApiError("ValidationException", f"maxResults must be from 0 to {MAX_PAGE}, not {size}.")
    start = 0
    if token is not None:
        if not token.startswith("offset-") or not token[7:].isdigit():
            raise ApiError("InvalidToken", f"Invalid Token: '{token}'")
        start = int(token[7:])
    end = start + (size or MAX_PAGE)
    answer: dict[str, Any] = {member: items[start:end]}
    if end < len(items):
        answer["nextToken"] = f"offset-{end}"
    return answer
