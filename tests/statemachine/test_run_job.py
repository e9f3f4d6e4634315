"""Every way through the production state machine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.statemachine.scripted import FAILED, FINISHED, INPUT, OPENED, REPORT, RUN_ID, RunJob, failing, planned


def test_rounds_of_every_kind_until_nothing_is_left(run_job: RunJob) -> None:
    run_job.script(
        "GetChunks",
        run_job.work(1, "copy_to_temp", "sql"),
        run_job.work(3),
        run_job.work(1),
        run_job.work(2, "expect", "check", concurrency=2),
        planned(),
    )
    ended = run_job.run()
    assert ended.status == "SUCCEEDED", ended.description
    assert ended.output == FINISHED
    assert ended.visited == [
        "Validate config",
        *["Plan round", "What is next?", "Process chunks"] * 4,
        *["Plan round", "What is next?", "Finish run", "Succeeded?", "Run succeeded"],
    ]
    assert run_job.calls["ValidateConfig"] == [{**INPUT, "params": {}}]
    assert run_job.calls["GetChunks"] == [{"job": "pack/job", "run_id": RUN_ID}] * 5
    assert run_job.calls["FinishRun"] == [{"job": "pack/job", "run_id": RUN_ID}]
    assert sorted((call["step"], call["chunk"]) for call in run_job.calls["ProcessChunk"]) == [
        ("copy_to_temp", 1), ("expect", 1), ("expect", 2), ("update", 1), ("update", 1), ("update", 2), ("update", 3),
    ]  # fmt: skip
    assert all(
        call.keys() == {"job", "run_id", "step", "chunk"} and (call["job"], call["run_id"]) == ("pack/job", RUN_ID)
        for call in run_job.calls["ProcessChunk"]
    )
    assert {child["status"] for child in run_job.children(ended)} == {"SUCCEEDED"}


def test_concurrency_of_a_round_is_what_the_round_says(run_job: RunJob) -> None:
    run_job.script("GetChunks", run_job.work(2, concurrency=3), planned())
    assert run_job.world.map_run(run_job.run().arn)["maxConcurrency"] == 3


def test_results_are_written_beside_the_manifests(run_job: RunJob) -> None:
    run_job.script("GetChunks", run_job.work(2), planned())
    run_job.run()
    written = [key for _, key in run_job.world.s3.objects if key.startswith(f"runs/{RUN_ID}/results")]
    assert [key.rpartition("/")[2] for key in written] == ["SUCCEEDED_0.json", "manifest.json"]


def test_parameters_reach_validate_config(run_job: RunJob) -> None:
    run_job.run({**INPUT, "params": {"since": "2025-01-01"}})
    assert run_job.calls["ValidateConfig"] == [{**INPUT, "params": {"since": "2025-01-01"}}]


def test_back_off_delays_the_round_and_does_not_plan_again(run_job: RunJob) -> None:
    run_job.script("GetChunks", run_job.work(1, wait_seconds=40), planned())
    ended = run_job.run()
    assert ended.visited[1:6] == ["Plan round", "What is next?", "Back off", "Process chunks", "Plan round"]
    assert run_job.world.pauses == [40]
    assert len(run_job.calls["ProcessChunk"]) == 1


def test_hold_back_waits_and_plans_again(run_job: RunJob) -> None:
    held = planned("wait", step="update", kind="update", wait_seconds=60, reason="lock_wait: 9 s")
    run_job.script("GetChunks", held, held, run_job.work(1), planned())
    ended = run_job.run()
    assert ended.status == "SUCCEEDED"
    assert ended.visited[1:5] == ["Plan round", "What is next?", "Hold back", "Plan round"]
    assert run_job.world.pauses == [60, 60]
    assert len(run_job.calls["ProcessChunk"]) == 1


def test_pause_ends_the_execution_as_paused(run_job: RunJob) -> None:
    run_job.script("GetChunks", run_job.work(1), planned("stop", reason="month end"))
    ended = run_job.run()
    assert ended.status == "SUCCEEDED"
    assert ended.output == {"run_id": RUN_ID, "state": "paused", "cause": "month end"}
    assert ended.visited[-1] == "Run paused"
    assert not run_job.calls["FinishRun"]


def test_attaching_to_a_run_that_has_succeeded_changes_nothing(run_job: RunJob) -> None:
    run_job.script("ValidateConfig", {**OPENED, "state": "succeeded", "attached": True})
    ended = run_job.run()
    assert (ended.status, ended.output) == ("SUCCEEDED", FINISHED)
    assert not run_job.calls["ProcessChunk"]


def test_drift_is_a_success(run_job: RunJob) -> None:
    run_job.script("FinishRun", {**FINISHED, "state": "succeeded_with_drift"})
    ended = run_job.run()
    assert (ended.status, ended.output["state"]) == ("SUCCEEDED", "succeeded_with_drift")


@pytest.mark.parametrize("finished", [FAILED, {**FAILED, "state": "cancelled", "error": "Cancelled", "cause": "mine"}])
def test_run_that_did_not_succeed_fails_the_execution_in_its_own_words(
    run_job: RunJob, finished: dict[str, Any]
) -> None:
    run_job.script("FinishRun", finished)
    ended = run_job.run()
    assert ended.status == "FAILED"
    cause = f"run {RUN_ID} {finished['state']}: {finished['cause']} Report: {REPORT}"
    assert ended.error == (finished["error"], cause)


@pytest.mark.parametrize(
    ("without", "error", "cause"),
    [
        (["error"], "RunFailed", f"run 7 failed: 2 chunks in quarantine Report: {REPORT}"),
        (["cause"], "ChunksQuarantined", f"run 7 failed: no cause was given Report: {REPORT}"),
        (["report"], "ChunksQuarantined", "run 7 failed: 2 chunks in quarantine"),
        (["error", "cause", "report", "state"], "RunFailed", "run 7 : no cause was given"),
    ],
)
def test_failure_is_told_although_finish_run_leaves_a_field_out(
    run_job: RunJob, without: list[str], error: str, cause: str
) -> None:
    run_job.script("FinishRun", {name: value for name, value in FAILED.items() if name not in without})
    assert run_job.run().error == (error, cause)


@pytest.mark.parametrize("name", ["BadInputError", "TargetBusyError", "RunKeyReusedError", "RunCancelledError"])
def test_refused_job_starts_nothing(run_job: RunJob, name: str) -> None:
    run_job.script("ValidateConfig", failing(name))
    ended = run_job.run()
    assert ended.visited == ["Validate config", "Run refused"]
    error, cause = ended.error
    assert error == name
    assert json.loads(cause)["errorMessage"] == f"this is {name}"
    assert run_job.calls.keys() == {"ValidateConfig"}


def test_refusal_without_a_cause(run_job: RunJob) -> None:
    run_job.script("ValidateConfig", failing("States.Timeout"))
    assert run_job.run().error == ("States.Timeout", "no cause was given")


@pytest.mark.parametrize("missing", INPUT)
def test_input_without_job_or_run_key_is_refused_before_any_function(run_job: RunJob, missing: str) -> None:
    ended = run_job.run({name: value for name, value in INPUT.items() if name != missing})
    assert ended.visited == ["Validate config", "Run refused"]
    error, cause = ended.error
    assert error == "States.QueryEvaluationError"
    assert f"$states.input.{missing}" in cause
    assert not run_job.calls


def test_answer_without_a_run_is_refused(run_job: RunJob) -> None:
    run_job.script("ValidateConfig", {"job": "pack/job"})
    ended = run_job.run()
    assert (ended.visited[-1], ended.error[0]) == ("Run refused", "States.QueryEvaluationError")
    assert len(run_job.calls["ValidateConfig"]) == 1


def test_plan_that_fails_ends_the_run_with_its_error(run_job: RunJob) -> None:
    run_job.script("GetChunks", run_job.work(1), failing("StatementError"))
    run_job.script("FinishRun", {**FAILED, "error": "StatementError", "cause": "this is StatementError"})
    ended = run_job.run()
    assert ended.visited[-3:] == ["Plan round", "Finish after error", "Run failed"]
    (call,) = run_job.calls["FinishRun"]
    assert call.keys() == {"job", "run_id", "error"}
    assert call["error"]["Error"] == "StatementError"
    assert json.loads(call["error"]["Cause"])["errorMessage"] == "this is StatementError"
    assert ended.error == ("StatementError", f"run 7 failed: this is StatementError Report: {REPORT}")


def test_execution_that_fails_on_a_run_that_had_ended_tells_its_own_error(run_job: RunJob) -> None:
    run_job.script("GetChunks", failing("StatementError"))
    error, cause = run_job.run().error
    assert error == "StatementError"
    assert "this is StatementError" in cause
    assert "run 7 succeeded: " in cause


def test_missing_manifest_ends_the_run(run_job: RunJob) -> None:
    run_job.script("GetChunks", planned("work", step="update", kind="update", key="nowhere.json"))
    ended = run_job.run()
    assert ended.visited[-3:] == ["Process chunks", "Finish after error", "Run failed"]
    assert run_job.calls["FinishRun"][0]["error"]["Error"] == "States.ItemReaderFailed"


def test_failed_children_decide_nothing(run_job: RunJob) -> None:
    run_job.script("GetChunks", run_job.work(3), run_job.work(2), planned())
    run_job.script("ProcessChunk", *[failing("TerminalError")] * 4, {"state": "done"})
    ended = run_job.run()
    assert ended.status == "SUCCEEDED"
    children = run_job.children(ended)
    assert sorted(child["status"] for child in children) == ["FAILED"] * 4 + ["SUCCEEDED"]
    assert {child["error"] for child in children if child["status"] == "FAILED"} == {"TerminalError"}


def test_chunk_of_an_unknown_kind_fails_alone(run_job: RunJob) -> None:
    run_job.script("GetChunks", run_job.work(1, "old", "teleport"), planned())
    ended = run_job.run()
    assert ended.status == "SUCCEEDED"
    (child,) = run_job.children(ended)
    assert (child["error"], child["cause"]) == ("TerminalError", "no function works steps of kind teleport")
    assert not run_job.calls["ProcessChunk"]


def test_unknown_action_finishes(run_job: RunJob) -> None:
    run_job.script("GetChunks", planned("dance"))
    assert run_job.run().visited[-3:] == ["Finish run", "Succeeded?", "Run succeeded"]


def test_finish_run_that_fails_breaks_the_run(run_job: RunJob) -> None:
    run_job.script("FinishRun", failing("LedgerError"))
    ended = run_job.run()
    assert ended.visited[-2:] == ["Finish run", "Run broken"]
    error, cause = ended.error
    assert error == "LedgerError"
    assert cause.startswith("run 7: ")
    assert "this is LedgerError" in cause


def test_first_error_is_told_where_finish_after_error_fails_too(run_job: RunJob) -> None:
    run_job.script("GetChunks", failing("StatementError"))
    run_job.script("FinishRun", failing("LedgerError"))
    ended = run_job.run()
    assert ended.visited[-2:] == ["Finish after error", "Run broken"]
    assert ended.error[0] == "StatementError"


def test_answer_above_the_limit_of_the_service_is_the_end(run_job: RunJob) -> None:
    """Neither Retry nor Catch sees States.DataLimitExceeded: answers must stay small."""
    run_job.script("GetChunks", planned(reason="x" * 256 * 1024))
    ended = run_job.run()
    assert (ended.visited[-1], ended.error[0]) == ("Plan round", "States.DataLimitExceeded")
