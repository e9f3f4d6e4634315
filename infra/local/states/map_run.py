"""The record of one Distributed Map at work: its children, its counters, when it has failed too often."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from .clock import Clock
from .errors import Stopped
from .execution import ABORTED, FAILED, RUNNING, SUCCEEDED, TIMED_OUT, Execution

# Full histories kept of a Map Run's finished children; older ones shrink to their first and last event.
KEPT_HISTORIES = 1000
_COUNTERS = {RUNNING: "running", SUCCEEDED: "succeeded", FAILED: "failed", TIMED_OUT: "timedOut", ABORTED: "aborted"}


class MapRun:
    """A Map Run as DescribeMapRun shows it. Counters count items and executions alike: one item a child."""

    def __init__(
        self,
        *,
        arn: str,
        execution_arn: str,
        machine_arn: str,
        total: int,
        max_concurrency: int,
        tolerated_percentage: float | None,
        tolerated_count: int | None,
        clock: Clock,
    ) -> None:
        self.arn = arn
        self.execution_arn = execution_arn
        self.machine_arn = machine_arn
        self.total = total
        self.max_concurrency = max_concurrency
        self.tolerated_percentage = tolerated_percentage
        self.tolerated_count = tolerated_count
        self.status = RUNNING
        self.start = clock.now()
        self.stop: float | None = None
        self.children: list[Execution | None] = [None] * total
        self.results_written = 0
        self.on_resize: Callable[[int], None] = _ignore
        self._clock = clock
        self._lock = threading.Lock()
        self._open = True
        self._counts = dict.fromkeys(_COUNTERS.values(), 0)
        self._with_history: deque[Execution] = deque()

    def begin(self, index: int, child: Execution) -> None:
        """Count a child as running; Stopped when the Map Run takes no more."""
        with self._lock:
            if not self._open:
                raise Stopped
            self.children[index] = child
            self._counts["running"] += 1

    def ended(self, child: Execution) -> None:
        """Count a child's end."""
        with self._lock:
            self._counts["running"] -= 1
            self._counts[_COUNTERS[child.status]] += 1
            self._with_history.append(child)
            oldest = self._with_history.popleft() if len(self._with_history) > KEPT_HISTORIES else None
        if oldest:
            oldest.history.condense()

    def exceeded(self) -> bool:
        """Whether more items have failed than the Map tolerates: none, unless a count or percentage is given."""
        with self._lock:
            failed = self._counts["failed"] + self._counts["timedOut"]
        percentage, count = self.tolerated_percentage, self.tolerated_count
        if percentage is None and count is None:
            return failed > 0
        by_share = percentage is not None and failed * 100 > percentage * self.total
        return by_share or (count is not None and failed > count)

    def close(self) -> None:
        """Take no further child, and abort those that run."""
        with self._lock:
            self._open = False
            running = [child for child in self.children if child and child.status == RUNNING]
        for child in running:
            child.abort()

    def forget_children(self) -> list[Execution]:
        """Let go of the children, of which the counters stay; what was let go."""
        children = [child for child in self.children if child]
        self.children = []
        return children

    def finish(self, status: str) -> None:
        """Set the final status."""
        self.stop = self._clock.now()
        self.status = status
        self.on_resize = _ignore

    def update(self, max_concurrency: int | None, percentage: float | None, count: int | None) -> None:
        """Change the limits of a running Map Run; None leaves one as it is."""
        if percentage is not None:
            self.tolerated_percentage = percentage
        if count is not None:
            self.tolerated_count = count
        if max_concurrency is not None:
            self.max_concurrency = max_concurrency
            self.on_resize(max_concurrency)

    def summary(self) -> dict[str, Any]:
        """The Map Run as ListMapRuns shows it."""
        answer = {
            "mapRunArn": self.arn,
            "executionArn": self.execution_arn,
            "stateMachineArn": self.machine_arn,
            "startDate": self.start,
        }
        return answer | ({"stopDate": self.stop} if self.stop is not None else {})

    def describe(self) -> dict[str, Any]:
        """The Map Run as DescribeMapRun shows it."""
        with self._lock:
            counts = dict(self._counts)
        counts["pending"] = self.total - sum(counts.values())
        counts |= {"total": self.total, "resultsWritten": self.results_written}
        answer = self.summary()
        del answer["stateMachineArn"]
        return answer | {
            "status": self.status,
            "maxConcurrency": self.max_concurrency,
            "toleratedFailurePercentage": self.tolerated_percentage or 0,
            "toleratedFailureCount": self.tolerated_count or 0,
            "itemCounts": counts,
            "executionCounts": counts,
            "redriveCount": 0,
        }


def _ignore(limit: int) -> None:
    """Stands in where nothing runs; a finished Map Run keeps nothing else alive."""
