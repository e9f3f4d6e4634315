"""Every Retry and every Catch of the production state machine, made to fire with its real error names.

The cases are read from the file: an entry with a name that nothing here can produce fails its test.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sluice import errors
from tests.statemachine.production import AWS_NAMES, STATES, TASKS, function_of
from tests.statemachine.scripted import Ended, RunJob, failing, planned

# What the wildcard is tried with: a name of nobody's, one of the engine, and what AWS says of a crash.
ANYTHING = ("SomethingUnforeseen", "TransientError", "Runtime.ExitError", "States.Timeout")


@dataclass(frozen=True)
class Case:
    """One error name of one entry of a state's Retry or Catch."""

    state: str
    entry: int
    error: str

    def __str__(self) -> str:
        return f"{self.state}, {self.entry}, {self.error}"

    @property
    def retrier(self) -> dict[str, Any]:
        retrier: dict[str, Any] = STATES[self.state]["Retry"][self.entry]
        return retrier


def cases(member: str) -> Iterator[Case]:
    """All cases of all states; the wildcard stands for names that no entry before it has."""
    for name, state in STATES.items():
        named = {error for entry in state.get(member, []) for error in entry["ErrorEquals"]}
        for number, entry in enumerate(state.get(member, [])):
            for error in entry["ErrorEquals"]:
                produced = [name for name in ANYTHING if name not in named] if error == "States.ALL" else [error]
                yield from (Case(name, number, error) for error in produced)


RETRIES = list(cases("Retry"))
CATCHES = list(cases("Catch"))


def arrange(run_job: RunJob, state: str) -> str:
    """Make the run come to a Task, with one chunk to work; the name of the Task's function."""
    run_job.script("GetChunks", run_job.work(1), planned())
    if state == "Finish after error":
        run_job.script("GetChunks", failing("StatementError"))
    return function_of(STATES[state])


def attempts(run_job: RunJob, ended: Ended, state: str) -> int:
    """How often the Task was tried, counted in the functions; the chunk's in its child."""
    calls = len(run_job.calls[function_of(STATES[state])])
    return calls - 1 if state == "Plan round" and "Process chunks" in ended.visited else calls


def producible(error: str) -> bool:
    return error in AWS_NAMES or hasattr(errors, error) or error in ANYTHING


@pytest.mark.parametrize("case", RETRIES, ids=str)
def test_retry_tries_as_often_as_it_says_and_then_gives_up(run_job: RunJob, case: Case) -> None:
    assert producible(case.error)
    function = arrange(run_job, case.state)
    run_job.script(function, failing(case.error))
    ended = run_job.run()
    retrier, pauses = case.retrier, run_job.world.pauses
    assert attempts(run_job, ended, case.state) == retrier["MaxAttempts"] + 1
    ceilings = [
        min(retrier["IntervalSeconds"] * retrier["BackoffRate"] ** number, retrier.get("MaxDelaySeconds", math.inf))
        for number in range(retrier["MaxAttempts"])
    ]
    assert len(pauses) == len(ceilings)
    assert all(0 <= pause <= ceiling for pause, ceiling in zip(pauses, ceilings, strict=True))
    if ceilings:
        assert (pauses == ceilings) == (retrier["JitterStrategy"] == "NONE")
    if case.state == "Process chunk":
        (child,) = run_job.children(ended)
        assert (child["status"], child["error"]) == ("FAILED", case.error)
        assert ended.status == "SUCCEEDED"
    else:
        assert ended.status == "FAILED"
        assert STATES[case.state]["Catch"][0]["Next"] in ended.visited


@pytest.mark.parametrize("case", [case for case in RETRIES if case.retrier["MaxAttempts"]], ids=str)
def test_retry_that_succeeds_leaves_no_trace(run_job: RunJob, case: Case) -> None:
    function = arrange(run_job, case.state)
    good = run_job.answers(function)
    run_job.script(function, *[failing(case.error)] * case.retrier["MaxAttempts"], *good)
    ended = run_job.run()
    assert attempts(run_job, ended, case.state) == case.retrier["MaxAttempts"] + len(good[:1])
    if case.state == "Finish after error":
        assert ended.visited[-1] == "Run failed"
    else:
        assert ended.status == "SUCCEEDED", ended.description
        assert {child["status"] for child in run_job.children(ended)} == {"SUCCEEDED"}


@pytest.mark.parametrize("case", [case for case in CATCHES if case.state in TASKS], ids=str)
def test_catch_of_a_task_takes_every_error_and_keeps_it(run_job: RunJob, case: Case) -> None:
    run_job.script(arrange(run_job, case.state), failing(case.error))
    ended = run_job.run()
    target = STATES[case.state]["Catch"][case.entry]["Next"]
    assert target == ended.visited[ended.visited.index(case.state) + 1]
    if case.state == "Finish after error":
        # What had failed before is what the run fails of.
        assert ended.error[0] == "StatementError"
    elif target == "Finish after error":
        assert run_job.calls["FinishRun"][0]["error"]["Error"] == case.error
    else:
        assert ended.error[0] == case.error


def missing_manifest(run_job: RunJob) -> None:
    run_job.script("GetChunks", planned("work", step="update", kind="update", key="nowhere.json"))


def refused_results(run_job: RunJob) -> None:
    run_job.script("GetChunks", run_job.work(1), planned())
    run_job.world.s3.refuse_writes = True


def manifest_of_something_else(run_job: RunJob) -> None:
    answer = run_job.work(1)
    run_job.world.s3.objects[answer["bucket"], answer["key"]] = b'[{"rows": 10}]'
    run_job.script("GetChunks", answer)


@pytest.mark.parametrize(
    ("arrange_map", "error"),
    [
        (missing_manifest, "States.ItemReaderFailed"),
        (refused_results, "States.ResultWriterFailed"),
        (manifest_of_something_else, "States.QueryEvaluationError"),
    ],
)
def test_catch_of_the_map_takes_every_error_and_keeps_it(run_job: RunJob, arrange_map: Any, error: str) -> None:
    arrange_map(run_job)
    ended = run_job.run()
    assert ended.visited[-3:] == ["Process chunks", "Finish after error", "Run failed"]
    assert run_job.calls["FinishRun"][0]["error"]["Error"] == error


def test_every_catch_takes_everything_and_is_tried() -> None:
    catching = {name for name, state in STATES.items() if "Catch" in state}
    assert catching == {*TASKS, "Process chunks"} - {"Process chunk"}
    assert {case.state for case in CATCHES} == catching
    assert all(STATES[name]["Catch"][0]["ErrorEquals"] == ["States.ALL"] for name in catching)
    assert all(len(STATES[name]["Catch"]) == 1 for name in catching)
