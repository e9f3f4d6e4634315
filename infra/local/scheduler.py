"""Fires EventBridge schedules: moto keeps them, this thread reads them and starts their targets."""

from __future__ import annotations

import json
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.local.errors import LocalStackError
from infra.local.schedule_expressions import next_fire

TICK_SECONDS = 0.2
# How long one retry waits at most, in the schedule's own time.
MAX_BACKOFF_SECONDS = 3600.0


class TargetError(LocalStackError):
    """A target refused the event."""

    def __init__(self, code: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class FastClock:
    """A wall clock that runs `speed` times as fast, from now on."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._began = time.time()
        self._mark = time.monotonic()

    def now(self) -> datetime:
        passed = (time.monotonic() - self._mark) * self.speed
        return datetime.fromtimestamp(self._began + passed, UTC)


@dataclass
class _Entry:
    """What the scheduler remembers of one schedule."""

    fingerprint: str
    first: datetime
    due: datetime | None


@dataclass(frozen=True)
class Event:
    """One firing: the target's ARN, its input with the context filled in, and what a dead-letter message says."""

    schedule: Mapping[str, Any]
    scheduled_time: datetime
    execution_id: str

    @property
    def target(self) -> Mapping[str, Any]:
        target: Mapping[str, Any] = self.schedule["Target"]
        return target

    def input(self, attempt: int) -> str:
        """The target's Input with the context attributes in it; Scheduler's own event where there is none."""
        moment = self.scheduled_time.strftime("%Y-%m-%dT%H:%M:%SZ")
        text = self.target.get("Input")
        if text is None:
            return json.dumps({
                "version": "0", "id": self.execution_id, "detail-type": "Scheduled Event", "source": "aws.scheduler",
                "time": moment, "resources": [self.schedule["Arn"]], "detail": "{}",
            })  # fmt: skip
        values = {
            "schedule-arn": self.schedule["Arn"],
            "scheduled-time": moment,
            "execution-id": self.execution_id,
            "attempt-number": str(attempt),
        }
        for name, value in values.items():
            text = text.replace(f"<aws.scheduler.{name}>", value)
        return str(text)


class Scheduler:
    """The thread. `schedules()` lists them as GetSchedule has them; `start(event, input)` starts a target.

    `start` raises TargetError; `dead_letter(queue_arn, message, attributes)` takes what no retry could deliver;
    `completed(schedule)` is called after a one-time schedule that wants to be deleted.
    """

    def __init__(
        self,
        schedules: Callable[[], Iterable[Mapping[str, Any]]],
        start: Callable[[Event, str], None],
        *,
        dead_letter: Callable[[str, str, dict[str, str]], None],
        completed: Callable[[Mapping[str, Any]], None],
        clock: FastClock,
    ) -> None:
        self._schedules, self._start = schedules, start
        self._dead_letter, self._completed = dead_letter, completed
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _run(self) -> None:
        while not self._closing.wait(TICK_SECONDS):
            try:
                self.tick()
            except Exception as error:
                print(f"scheduler: {type(error).__name__}: {error}", file=sys.stderr)

    def tick(self) -> None:
        """Fire everything that is due."""
        now = self._clock.now()
        current = {schedule["Arn"]: schedule for schedule in self._schedules()}
        self._entries = {arn: entry for arn, entry in self._entries.items() if arn in current}
        for arn, schedule in current.items():
            entry = self._entries.get(arn)
            if entry is None or entry.fingerprint != _fingerprint(schedule):
                entry = self._entries[arn] = self._enter(schedule, now)
            while entry.due is not None and entry.due <= now:
                due = entry.due
                entry.due = self._following(schedule, due, entry.first)
                if schedule.get("State") == "ENABLED":
                    event = Event(schedule, due, str(uuid.uuid4()))
                    threading.Thread(target=self._deliver, args=(event,), daemon=True).start()
                    if entry.due is None and schedule.get("ActionAfterCompletion") == "DELETE":
                        self._completed(schedule)

    def _enter(self, schedule: Mapping[str, Any], now: datetime) -> _Entry:
        given = _moment(schedule.get("StartDate"))
        first = given or now
        due = self._following(schedule, min(now, first) - timedelta(seconds=1), first)
        if given and due and due < now:
            # What lay before the schedule was stored is past.
            due = self._following(schedule, now, first)
        return _Entry(_fingerprint(schedule), first, due)

    @staticmethod
    def _following(schedule: Mapping[str, Any], after: datetime, first: datetime) -> datetime | None:
        zone = schedule.get("ScheduleExpressionTimezone") or "UTC"
        due = next_fire(schedule["ScheduleExpression"], zone, after, first)
        end = _moment(schedule.get("EndDate"))
        return None if due and end and due > end else due

    def _deliver(self, event: Event) -> None:
        policy = event.target.get("RetryPolicy") or {}
        attempts = int(policy.get("MaximumRetryAttempts", 185))
        age = timedelta(seconds=float(policy.get("MaximumEventAgeInSeconds", 86400)))
        attempt = 1
        while True:
            try:
                self._start(event, event.input(attempt))
                return
            except TargetError as error:
                expired = self._clock.now() - event.scheduled_time > age
                if not error.retryable or attempt > attempts or expired:
                    self._give_up(event, error, attempt)
                    return
            pause = min(2.0**attempt, MAX_BACKOFF_SECONDS) / self._clock.speed
            if self._closing.wait(pause):
                return
            attempt += 1

    def _give_up(self, event: Event, error: TargetError, attempt: int) -> None:
        name = event.schedule["Name"]
        print(f"schedule {name} could not start its target: {error.code}: {error}", file=sys.stderr)
        queue = (event.target.get("DeadLetterConfig") or {}).get("Arn")
        if queue:
            attributes = {
                "ERROR_CODE": error.code,
                "ERROR_MESSAGE": str(error),
                "EXECUTION_ID": event.execution_id,
                "RETRY_ATTEMPTS": str(attempt - 1),
                "SCHEDULED_TIME": event.scheduled_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "SCHEDULE_ARN": event.schedule["Arn"],
                "TARGET_ARN": event.target["Arn"],
            }
            self._dead_letter(queue, event.input(attempt), attributes)


def _fingerprint(schedule: Mapping[str, Any]) -> str:
    keys = ("ScheduleExpression", "ScheduleExpressionTimezone", "StartDate", "EndDate", "CreationDate")
    return json.dumps([schedule.get(key) for key in keys], default=str)


def _moment(value: Any) -> datetime | None:
    """A date as moto keeps it: seconds since the epoch, ISO text, or none."""
    if value in (None, ""):
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    try:
        return datetime.fromtimestamp(float(value), UTC)
    except ValueError:
        return datetime.fromisoformat(str(value)).astimezone(UTC)
