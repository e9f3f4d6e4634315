"""Schedule expressions, and the thread that fires schedules."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.local.processes import wait_until
from infra.local.schedule_expressions import ScheduleExpressionError, next_fire
from infra.local.scheduler import Event, FastClock, Scheduler, TargetError
from infra.local.stack import LocalStack


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        ("cron(0 2 * * ? *)", "UTC", "2025-01-31T01:59:59", "2025-01-31T02:00:00"),
        ("cron(0 2 * * ? *)", "UTC", "2025-01-31T02:00:00", "2025-02-01T02:00:00"),
        ("cron(0 2 * * ? *)", "Europe/Berlin", "2025-01-31T00:30:00", "2025-01-31T01:00:00"),
        ("cron(0 2 * * ? *)", "Asia/Kathmandu", "2025-01-31T00:00:00", "2025-01-31T20:15:00"),
        ("cron(0/15 8-10 ? * MON-FRI *)", "UTC", "2025-01-31T10:45:00", "2025-02-03T08:00:00"),
        ("cron(30 6 ? * 2,4 *)", "UTC", "2025-01-29T07:00:00", "2025-02-03T06:30:00"),
        ("cron(0 0 L * ? *)", "UTC", "2025-02-01T00:00:00", "2025-02-28T00:00:00"),
        ("cron(0 0 1W 2 ? *)", "UTC", "2025-01-01T00:00:00", "2025-02-03T00:00:00"),
        ("cron(0 0 15W 2 ? *)", "UTC", "2025-01-01T00:00:00", "2025-02-14T00:00:00"),
        ("cron(0 0 ? * 6L *)", "UTC", "2025-01-01T00:00:00", "2025-01-31T00:00:00"),
        ("cron(0 0 ? * FRI#2 *)", "UTC", "2025-01-01T00:00:00", "2025-01-10T00:00:00"),
        ("cron(0 0 29 FEB ? *)", "UTC", "2025-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("cron(0 0 1 1 ? 2024)", "UTC", "2025-01-01T00:00:00", None),
        ("at(2025-01-31T02:00:00)", "Europe/Berlin", "2025-01-01T00:00:00", "2025-01-31T01:00:00"),
        ("at(2025-01-31T02:00:00)", "UTC", "2025-01-31T02:00:00", None),
        ("rate(5 minutes)", "UTC", "2025-01-01T00:12:00", "2025-01-01T00:15:00"),
        ("rate(1 hour)", "UTC", "2025-01-01T00:00:00", "2025-01-01T01:00:00"),
        ("rate(1 day)", "UTC", "2024-12-31T23:59:59", "2025-01-01T00:00:00"),
    ],
)
def test_next_fire(expression: str, zone: str, after: str, expected: str | None) -> None:
    first = moment("2025-01-01T00:00:00")
    found = next_fire(expression, zone, moment(after), first)
    assert found == (moment(expected) if expected else None)


def test_time_that_summer_time_skips_does_not_fire() -> None:
    after = moment("2025-03-29T02:00:00")
    found = next_fire("cron(30 2 * * ? *)", "Europe/Berlin", after, after)
    assert found == moment("2025-03-31T00:30:00")


def test_time_that_occurs_twice_fires_once() -> None:
    expression, zone = "cron(30 2 * * ? *)", "Europe/Berlin"
    first = moment("2025-10-25T12:00:00")
    found = next_fire(expression, zone, first, first)
    assert found == moment("2025-10-26T00:30:00")
    assert found
    assert next_fire(expression, zone, found, first) == moment("2025-10-27T01:30:00")


@pytest.mark.parametrize(
    "expression",
    [
        "every day", "rate(0 minutes)", "rate(5 weeks)", "at(tomorrow)", "cron(0 2 * * ?)", "cron(0 2 * * * *)",
        "cron(60 2 * * ? *)", "cron(0 2 32 * ? *)", "cron(0 2 ? * FOO *)", "cron(0/0 2 * * ? *)",
    ],
)  # fmt: skip
def test_bad_expression_is_refused(expression: str) -> None:
    now = moment("2025-01-01T00:00:00")
    with pytest.raises(ScheduleExpressionError):
        next_fire(expression, "UTC", now, now)


class HandClock(FastClock):
    """A clock that a test moves; pauses between retries take no time."""

    def __init__(self, start: str) -> None:
        super().__init__(1e6)
        self.moment = moment(start)

    def now(self) -> datetime:
        return self.moment


class Recorder:
    """Stands in for the targets."""

    def __init__(self, clock: HandClock, schedules: list[dict[str, Any]]) -> None:
        self.schedules = schedules
        self.started: list[str] = []
        self.failures: list[TargetError] = []
        self.dead: list[tuple[str, str, dict[str, str]]] = []
        self.deleted: list[str] = []
        self._lock = threading.Lock()
        self.scheduler = Scheduler(
            lambda: self.schedules, self.start, dead_letter=self.bury, completed=self.complete, clock=clock
        )

    def start(self, event: Event, text: str) -> None:
        with self._lock:
            if self.failures:
                raise self.failures.pop(0)
            self.started.append(text)

    def bury(self, queue: str, message: str, attributes: dict[str, str]) -> None:
        self.dead.append((queue, message, attributes))

    def complete(self, schedule: Mapping[str, Any]) -> None:
        self.deleted.append(schedule["Name"])

    def has_started(self, count: int) -> bool:
        return wait_until(lambda: len(self.started) >= count, 10)


def schedule(expression: str, **more: Any) -> dict[str, Any]:
    target = {"Arn": "arn:aws:states:x", "Input": "<aws.scheduler.scheduled-time>", **more.pop("Target", {})}
    return {
        "Arn": "arn:schedule", "Name": "nightly", "GroupName": "default", "ScheduleExpression": expression,
        "State": "ENABLED", "Target": target, **more,
    }  # fmt: skip


def test_schedule_fires_at_its_times_with_the_scheduled_time() -> None:
    clock = HandClock("2025-01-31T01:00:01")
    recorder = Recorder(clock, [schedule("cron(0 2 * * ? *)", ScheduleExpressionTimezone="Europe/Berlin")])
    recorder.scheduler.tick()
    clock.moment += timedelta(days=1, minutes=7)
    recorder.scheduler.tick()
    assert recorder.has_started(1)
    recorder.scheduler.tick()
    clock.moment += timedelta(days=2)
    recorder.scheduler.tick()
    assert recorder.has_started(3)
    assert sorted(recorder.started) == ["2025-02-01T01:00:00Z", "2025-02-02T01:00:00Z", "2025-02-03T01:00:00Z"]


def test_rate_fires_at_once_and_then_regularly() -> None:
    clock = HandClock("2025-01-01T00:00:30")
    recorder = Recorder(clock, [schedule("rate(1 minute)")])
    recorder.scheduler.tick()
    assert recorder.has_started(1)
    clock.moment += timedelta(seconds=59)
    recorder.scheduler.tick()
    clock.moment += timedelta(seconds=1)
    recorder.scheduler.tick()
    assert recorder.has_started(2)
    assert recorder.started == ["2025-01-01T00:00:30Z", "2025-01-01T00:01:30Z"]


def test_disabled_schedule_does_not_fire_and_what_it_missed_is_not_made_up() -> None:
    clock = HandClock("2025-01-01T00:00:00")
    entry = schedule("cron(0 * * * ? *)", State="DISABLED")
    recorder = Recorder(clock, [entry])
    recorder.scheduler.tick()
    clock.moment += timedelta(hours=3)
    recorder.scheduler.tick()
    entry["State"] = "ENABLED"
    clock.moment += timedelta(hours=1)
    recorder.scheduler.tick()
    assert recorder.has_started(1)
    assert recorder.started == ["2025-01-01T04:00:00Z"]


def test_start_and_end_date_bound_a_schedule() -> None:
    clock = HandClock("2025-01-01T00:00:00")
    start, end = moment("2025-01-01T02:30:00"), moment("2025-01-01T04:00:00")
    bounds = {"StartDate": start.timestamp(), "EndDate": end.isoformat()}
    recorder = Recorder(clock, [schedule("cron(0 * * * ? *)", **bounds)])
    for _ in range(8):
        recorder.scheduler.tick()
        clock.moment += timedelta(hours=1)
    assert recorder.has_started(2)
    assert sorted(recorder.started) == ["2025-01-01T03:00:00Z", "2025-01-01T04:00:00Z"]


def test_one_time_schedule_fires_once_and_is_deleted_when_it_wants() -> None:
    clock = HandClock("2025-01-01T00:00:00")
    recorder = Recorder(clock, [schedule("at(2025-01-01T01:00:00)", ActionAfterCompletion="DELETE")])
    for _ in range(3):
        recorder.scheduler.tick()
        clock.moment += timedelta(hours=1)
    assert recorder.has_started(1)
    assert recorder.deleted == ["nightly"]
    assert recorder.started == ["2025-01-01T01:00:00Z"]


def test_refused_start_is_retried_and_then_goes_to_the_dead_letter_queue() -> None:
    clock = HandClock("2025-01-01T00:00:00")
    target = {
        "Input": "attempt <aws.scheduler.attempt-number>",
        "RetryPolicy": {"MaximumRetryAttempts": 2},
        "DeadLetterConfig": {"Arn": "arn:aws:sqs:x:1:dead"},
    }
    entry = schedule("rate(1 day)", Target=target)
    recorder = Recorder(clock, [entry])
    recorder.failures = [TargetError("ThrottlingException", "later", retryable=True)] * 2
    recorder.scheduler.tick()
    assert recorder.has_started(1)
    assert recorder.started == ["attempt 3"]
    recorder.failures = [TargetError("ThrottlingException", "later", retryable=True)] * 3
    clock.moment += timedelta(days=1)
    recorder.scheduler.tick()
    assert wait_until(lambda: bool(recorder.dead), 10)
    queue, message, attributes = recorder.dead[0]
    assert (queue, message) == ("arn:aws:sqs:x:1:dead", "attempt 3")
    assert attributes["ERROR_CODE"] == "ThrottlingException"
    assert attributes["RETRY_ATTEMPTS"] == "2"


def test_refusal_that_no_retry_mends_goes_to_the_dead_letter_queue_at_once() -> None:
    recorder = Recorder(
        HandClock("2025-01-01T00:00:00"), [schedule("rate(1 day)", Target={"DeadLetterConfig": {"Arn": "dead"}})]
    )
    recorder.failures = [TargetError("StateMachineDoesNotExist", "gone", retryable=False)]
    recorder.scheduler.tick()
    assert wait_until(lambda: bool(recorder.dead), 10)
    assert recorder.dead[0][2]["RETRY_ATTEMPTS"] == "0"


def test_event_without_input_is_scheduler_s_own() -> None:
    entry = schedule("rate(1 day)")
    del entry["Target"]["Input"]
    event = json.loads(Event(entry, moment("2025-01-01T00:00:00"), "id").input(1))
    assert event["source"] == "aws.scheduler"
    assert event["time"] == "2025-01-01T00:00:00Z"


def test_schedule_stored_through_the_api_starts_an_execution(stack: LocalStack) -> None:
    schedules, states = stack.client("scheduler"), stack.client("stepfunctions")
    schedules.create_schedule(
        Name="often",
        ScheduleExpression="rate(1 minute)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={
            "Arn": stack.state_machine_arn,
            "RoleArn": "arn:aws:iam::123456789012:role/r",
            "Input": '{"key": "often.json", "at": "<aws.scheduler.scheduled-time>"}',
        },
    )

    def inputs() -> list[str]:
        found = states.list_executions(stateMachineArn=stack.state_machine_arn)["executions"]
        described = [states.describe_execution(executionArn=entry["executionArn"]) for entry in found]
        times = [json.loads(entry["input"]) for entry in described]
        return sorted(entry["at"] for entry in times if entry["key"] == "often.json")

    try:
        assert wait_until(lambda: len(inputs()) >= 3, 30)
        first, second = (datetime.fromisoformat(text) for text in inputs()[:2])
        assert second - first == timedelta(minutes=1)
    finally:
        schedules.delete_schedule(Name="often")


def test_schedule_of_a_missing_state_machine_ends_in_the_queue(stack: LocalStack) -> None:
    sqs, schedules = stack.client("sqs"), stack.client("scheduler")
    url = sqs.create_queue(QueueName="dead")["QueueUrl"]
    schedules.create_schedule(
        Name="nowhere",
        ScheduleExpression="rate(1 day)",
        FlexibleTimeWindow={"Mode": "OFF"},
        Target={
            "Arn": f"{stack.state_machine_arn}-missing",
            "RoleArn": "arn:aws:iam::123456789012:role/r",
            "DeadLetterConfig": {"Arn": "arn:aws:sqs:us-east-1:123456789012:dead"},
        },
    )
    found: list[Any] = []

    def arrived() -> bool:
        found.extend(sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"]).get("Messages", []))
        return bool(found)

    assert wait_until(arrived, 30)
    assert found[0]["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "StateMachineDoesNotExist"
    schedules.delete_schedule(Name="nowhere")
