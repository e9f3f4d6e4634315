"""The production state machine over real workers that crash, hang and are too many: do its Retry entries know them?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from infra.local.postgres import Postgres
from infra.local.processes import wait_until
from infra.local.stack import LocalStack

CHUNKS = 4
# What the fixture's template reserves for the function that works chunks.
RESERVED = 2


@pytest.fixture(scope="module")
def faulty(postgres: Postgres, application: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """The production state machine, where waits take no time, over functions that fail as they are told."""
    with LocalStack(
        template=application / "faulty" / "template.yaml",
        data_dir=tmp_path_factory.mktemp("faulty"),
        dsn=postgres.dsn(),
        clock_speed=float("inf"),
    ) as running:
        yield running


@pytest.fixture
def run(faulty: LocalStack, tmp_path: Path) -> Callable[..., Mapping[str, Any]]:
    """Run with so many words of misbehaviour a function; the execution's description."""

    def start(concurrency: int = RESERVED, **plan: list[str]) -> Mapping[str, Any]:
        states = faulty.client("stepfunctions")
        job = {"folder": str(tmp_path), "concurrency": concurrency, **plan}
        text = json.dumps({"job": json.dumps(job), "run_key": "one"})
        arn = states.start_execution(stateMachineArn=faulty.state_machine_arn, input=text)["executionArn"]
        assert wait_until(lambda: states.describe_execution(executionArn=arn)["status"] != "RUNNING", 120)
        description: Mapping[str, Any] = states.describe_execution(executionArn=arn)
        return description

    return start


def children(stack: LocalStack, arn: str) -> list[Mapping[str, Any]]:
    states = stack.client("stepfunctions")
    runs = states.list_map_runs(executionArn=arn)["mapRuns"]
    return [child for run in runs for child in states.list_executions(mapRunArn=run["mapRunArn"])["executions"]]


def failures(stack: LocalStack, arn: str) -> list[tuple[str, str]]:
    """Error and cause of every failed Task, of an execution and all its children."""
    states = stack.client("stepfunctions")
    arns = [arn, *(child["executionArn"] for child in children(stack, arn))]
    events = [event for each in arns for event in states.get_execution_history(executionArn=each)["events"]]
    details = [event["taskFailedEventDetails"] for event in events if event["type"] == "TaskFailed"]
    return [(detail["error"], detail["cause"]) for detail in details]


@pytest.mark.parametrize("function", ["validate", "plan", "work"])
@pytest.mark.parametrize(
    ("word", "error", "cause"),
    [
        ("exit", "Runtime.ExitError", "Runtime exited with error: exit status 1"),
        ("kill", "Runtime.ExitError", "Runtime exited with error: signal: killed"),
        ("sleep", "Sandbox.Timedout", "Task timed out after 2.00 seconds"),
        ("DatabaseUnavailableError", "DatabaseUnavailableError", "on purpose"),
    ],
)
def test_fault_has_its_name_and_is_retried(
    faulty: LocalStack, run: Callable[..., Mapping[str, Any]], function: str, word: str, error: str, cause: str
) -> None:
    ended = run(**{function: [word, word]})
    assert ended["status"] == "SUCCEEDED", ended
    assert [child["status"] for child in children(faulty, ended["executionArn"])] == ["SUCCEEDED"] * CHUNKS
    found = failures(faulty, ended["executionArn"])
    assert [name for name, _ in found] == [error] * 2
    for _, text in found:
        payload = json.loads(text)
        assert payload["errorType"] == error
        assert payload["errorMessage"].endswith(cause)


def test_crash_that_does_not_end_is_given_up_after_two_retries(
    faulty: LocalStack, run: Callable[..., Mapping[str, Any]]
) -> None:
    ended = run(plan=["kill"] * 3)
    assert (ended["status"], ended["error"]) == ("FAILED", "Runtime.ExitError")
    assert len(failures(faulty, ended["executionArn"])) == 3


def test_finish_run_survives_a_crash(run: Callable[..., Mapping[str, Any]]) -> None:
    assert run(finish=["kill", "exit"])["status"] == "SUCCEEDED"


def test_reserved_concurrency_throttles_and_the_children_come_again(
    faulty: LocalStack, run: Callable[..., Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More children than the function may run at once, the first of them busy for a while."""
    monkeypatch.setattr(faulty.states.clock, "speed", 10.0)
    ended = run(concurrency=CHUNKS, work=["nap"] * RESERVED)
    assert [child["status"] for child in children(faulty, ended["executionArn"])] == ["SUCCEEDED"] * CHUNKS
    found = failures(faulty, ended["executionArn"])
    assert {name for name, _ in found} == {"Lambda.TooManyRequestsException"}
    assert ended["status"] == "SUCCEEDED"


def test_terminal_error_is_not_retried(faulty: LocalStack, run: Callable[..., Mapping[str, Any]]) -> None:
    ended = run(validate=["TargetBusyError"])
    assert (ended["status"], ended["error"]) == ("FAILED", "TargetBusyError")
    assert len(failures(faulty, ended["executionArn"])) == 1
