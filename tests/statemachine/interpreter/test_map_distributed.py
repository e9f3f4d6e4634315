"""Distributed Map: items from S3, child executions, tolerance, result files, size, live changes."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from infra.local.states.map_io import ResultWriter, read_items
from infra.local.states.map_run import KEPT_HISTORIES
from tests.statemachine.interpreter.world import (
    WRITER,
    FakeS3,
    FunctionError,
    World,
    distributed,
    machine,
    task,
)

END: dict[str, Any] = {"Type": "Pass", "End": True}


def manifest(world: World, items: Any) -> None:
    world.s3.objects["bucket", "manifest.json"] = json.dumps(items).encode()


def failing_on(*broken: int) -> Any:
    def work(payload: int) -> int:
        if payload in broken:
            raise FunctionError("Broken", f"item {payload}")
        return payload * 2

    return work


def test_each_item_is_an_execution_of_its_own(world: World) -> None:
    manifest(world, [10, 20])
    arn = world.start(machine({"Each": distributed({"In": task()}, MaxConcurrency=1)}))
    assert json.loads(world.wait(arn)["output"]) == [10, 20]
    run = world.map_run(arn)
    children = world.call("ListExecutions", mapRunArn=run["mapRunArn"])["executions"]
    assert len(children) == 2
    for child in children:
        prefix = arn.rpartition(":")[0]
        assert child["executionArn"].startswith(f"{prefix}/chunks:")
        assert child["stateMachineArn"].endswith("/chunks")
        assert child["mapRunArn"] == run["mapRunArn"]
        assert child["itemCount"] == 1
    described = world.call("DescribeExecution", executionArn=children[-1]["executionArn"])
    assert (described["input"], described["output"], described["status"]) == ("10", "10", "SUCCEEDED")
    assert world.kinds(children[0]["executionArn"]) == [
        "ExecutionStarted",
        "TaskStateEntered",
        "TaskScheduled",
        "TaskStarted",
        "TaskSucceeded",
        "TaskStateExited",
        "ExecutionSucceeded",
    ]
    assert world.kinds(arn) == [
        "ExecutionStarted",
        "MapStateEntered",
        "MapStateStarted",
        "MapRunStarted",
        "MapRunSucceeded",
        "MapStateSucceeded",
        "MapStateExited",
        "ExecutionSucceeded",
    ]


def test_items_may_come_from_the_state_too(world: World) -> None:
    each = distributed({"In": END}, Items="{% $states.input.rows %}")
    del each["ItemReader"]
    assert world.output(machine({"Each": each}), {"rows": [1, None]}) == [1, None]


def test_a_child_failure_fails_an_intolerant_map(world: World) -> None:
    manifest(world, [1, 2, 3])
    world.functions["work"] = failing_on(2)
    arn = world.start(machine({"Each": distributed({"In": task("work")}, MaxConcurrency=1)}))
    answer = world.wait(arn)
    assert (answer["status"], answer["error"]) == ("FAILED", "States.ExceedToleratedFailureThreshold")
    run = world.map_run(arn)
    assert run["status"] == "FAILED"
    counts = run["itemCounts"]
    assert (counts["succeeded"], counts["failed"], counts["pending"], counts["total"]) == (1, 1, 1, 3)
    assert world.kinds(arn)[-3:] == ["MapRunFailed", "MapStateFailed", "ExecutionFailed"]


@pytest.mark.parametrize(
    ("members", "tolerated"),
    [
        ({"ToleratedFailurePercentage": 50}, True),
        ({"ToleratedFailurePercentage": 49.9}, False),
        ({"ToleratedFailurePercentage": "{% 25 * 2 %}"}, True),
        ({"ToleratedFailureCount": 2}, True),
        ({"ToleratedFailureCount": 1}, False),
        ({"ToleratedFailureCount": 1, "ToleratedFailurePercentage": 100}, False),
        ({"ToleratedFailureCount": 4, "ToleratedFailurePercentage": 10}, False),
        ({"ToleratedFailurePercentage": 0}, False),
    ],
)
def test_failures_are_tolerated_up_to_the_threshold(world: World, members: dict[str, Any], tolerated: bool) -> None:
    manifest(world, [1, 2, 3, 4])
    world.functions["work"] = failing_on(1, 3)
    answer = world.run(machine({"Each": distributed({"In": task("work")}, **members)}))
    assert answer["status"] == ("SUCCEEDED" if tolerated else "FAILED")
    if tolerated:
        first, second, third, fourth = json.loads(answer["output"])
        assert (second, fourth) == (4, 8)
        assert (first["Status"], first["Error"], first["Input"]) == ("FAILED", "Broken", "1")
        assert json.loads(third["Cause"])["errorMessage"] == "item 3"


def test_result_writer_leaves_real_files(world: World) -> None:
    manifest(world, [1, 2, 3])
    world.functions["work"] = failing_on(2)
    each = distributed({"In": task("work")}, ResultWriter=WRITER, ToleratedFailurePercentage=100)
    arn = world.start(machine({"Each": each}))
    answer = world.wait(arn)
    run = world.map_run(arn)
    folder = f"runs/7/results/{run['mapRunArn'].rpartition(':')[2]}"
    assert json.loads(answer["output"]) == {
        "MapRunArn": run["mapRunArn"],
        "ResultWriterDetails": {"Bucket": "bucket", "Key": f"{folder}/manifest.json"},
    }
    written = world.s3.json("bucket", f"{folder}/manifest.json")
    assert written["DestinationBucket"] == "bucket"
    assert written["MapRunArn"] == run["mapRunArn"]
    assert written["ResultFiles"]["PENDING"] == []
    (succeeded,), (failed,) = written["ResultFiles"]["SUCCEEDED"], written["ResultFiles"]["FAILED"]
    assert succeeded["Key"] == f"{folder}/SUCCEEDED_0.json"
    assert failed["Key"] == f"{folder}/FAILED_0.json"
    assert succeeded["Size"] == len(world.s3.objects["bucket", succeeded["Key"]])
    good = world.s3.json("bucket", succeeded["Key"])
    assert [(entry["Input"], entry["Output"], entry["Status"]) for entry in good] == [
        ("1", "2", "SUCCEEDED"),
        ("3", "6", "SUCCEEDED"),
    ]
    (bad,) = world.s3.json("bucket", failed["Key"])
    assert (bad["Input"], bad["Error"], bad["Status"]) == ("2", "Broken", "FAILED")
    assert bad["ExecutionArn"].startswith("arn:aws:states:")
    assert run["itemCounts"]["resultsWritten"] == 3


def test_a_failed_map_lists_what_it_did_not_start(world: World) -> None:
    manifest(world, [1, 2, 3])
    world.functions["work"] = failing_on(1)
    each = distributed({"In": task("work")}, ResultWriter=WRITER, MaxConcurrency=1)
    assert world.error(machine({"Each": each}))[0] == "States.ExceedToleratedFailureThreshold"
    (pending,) = [key for key in world.s3.objects if key[1].endswith("PENDING_0.json")]
    assert [entry["Input"] for entry in world.s3.json(*pending)] == ["2", "3"]


def test_result_files_are_split_by_size() -> None:
    class Run:
        arn = "arn:aws:states:us-east-1:1:mapRun:m/l:id"
        children: tuple[Any, ...] = (None,) * 5

    s3 = FakeS3()
    ResultWriter(s3, {"Bucket": "b"}, max_file_bytes=150).write(Run(), ["x" * 10] * 5)  # type: ignore[arg-type]
    files = s3.json("b", "id/manifest.json")["ResultFiles"]["PENDING"]
    assert [file["Key"] for file in files] == [f"id/PENDING_{number}.json" for number in range(len(files))]
    assert len(files) > 1
    assert all(file["Size"] <= 150 for file in files)
    assert sum(len(s3.json("b", file["Key"])) for file in files) == 5


def test_a_refused_result_file_fails_the_map(world: World) -> None:
    manifest(world, [1])
    world.s3.refuse_writes = True
    error, cause = world.error(machine({"Each": distributed({"In": END}, ResultWriter=WRITER)}))
    assert error == "States.ResultWriterFailed"
    assert "AccessDenied" in str(cause)


def test_a_bug_leaves_no_map_run_behind_that_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise LookupError("a bug")

    manifest(world, [1])
    monkeypatch.setattr(ResultWriter, "write", broken)
    arn = world.start(machine({"Each": distributed({"In": END}, ResultWriter=WRITER)}))
    assert world.wait(arn)["error"] == "States.Runtime"
    assert world.map_run(arn)["status"] == "FAILED"


def test_a_timeout_of_the_execution_aborts_the_map_run(slow_world: World) -> None:
    manifest(slow_world, [1, 2])
    waiting = {"In": {"Type": "Wait", "Seconds": 3600, "End": True}}
    arn = slow_world.start(machine({"Each": distributed(waiting)}, TimeoutSeconds=1))
    assert slow_world.wait(arn)["status"] == "TIMED_OUT"
    run = slow_world.map_run(arn)
    assert run["status"] == "ABORTED"
    assert run["itemCounts"]["aborted"] == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [(None, "NoSuchKey"), (b"{", "is not JSON"), (b'{"a": 1}', "does not hold a JSON array")],
)
def test_a_manifest_that_cannot_be_read(world: World, body: bytes | None, message: str) -> None:
    if body is not None:
        world.s3.objects["bucket", "manifest.json"] = body
    catch = [{"ErrorEquals": ["States.ItemReaderFailed"], "Next": "Caught"}]
    each = distributed({"In": END}, Catch=catch)
    caught = {"Type": "Pass", "Output": "{% $states.input.Cause %}", "End": True}
    assert message in world.output(machine({"Each": each, "Caught": caught}))


def test_max_items_cuts_the_manifest() -> None:
    s3 = FakeS3()
    s3.objects["b", "k"] = b"[1, 2, 3]"
    assert read_items(s3, {"Bucket": "b", "Key": "k"}, 2) == [1, 2]
    assert read_items(s3, {"Bucket": "b", "Key": "k"}, None) == [1, 2, 3]


def test_results_without_a_writer_must_fit_the_payload(world: World) -> None:
    manifest(world, list(range(30)))
    inside = {"In": {**END, "Output": f"{{% '{'x' * 10_000}' %}}"}}
    assert world.error(machine({"Each": distributed(inside)}))[0] == "States.DataLimitExceeded"
    writer = {"ResultWriter": WRITER}
    assert world.output(machine({"Each": distributed(inside, **writer)}))["ResultWriterDetails"]["Bucket"] == "bucket"


def test_an_item_selector_that_fails_fails_the_map(world: World) -> None:
    manifest(world, [{"chunk": 1}, {}])
    selector = "{% $states.context.Map.Item.Value.chunk %}"
    error, cause = world.error(machine({"Each": distributed({"In": END}, ItemSelector=selector)}))
    assert error == "States.QueryEvaluationError"
    assert "'ItemSelector'" in str(cause)


def test_children_retry_on_their_own(world: World) -> None:
    manifest(world, [1, 2])
    seen: list[int] = []

    def work(payload: int) -> int:
        seen.append(payload)
        if seen.count(payload) < 3:
            raise FunctionError("Busy")
        return payload

    world.functions["work"] = work
    inside = {"In": task("work", Retry=[{"ErrorEquals": ["Busy"], "IntervalSeconds": 5}])}
    assert world.output(machine({"Each": distributed(inside)})) == [1, 2]
    assert sorted(world.pauses) == [5, 5, 10, 10]


def test_ten_thousand_items_on_bounded_threads(world: World) -> None:
    manifest(world, [{"chunk": n, "rows": 1} for n in range(10_000)])
    threads: set[str] = set()
    highest = 0

    def work(payload: dict[str, Any]) -> dict[str, Any]:
        nonlocal highest
        threads.add(str(threading.get_ident()))
        highest = max(highest, threading.active_count())
        if payload["chunk"] % 1000 == 999:
            raise FunctionError("Broken")
        return {"chunk": payload["chunk"]}

    world.functions["work"] = work
    before = threading.active_count()
    each = distributed(
        {"In": task("work")},
        ItemSelector={"chunk": "{% $states.context.Map.Item.Value.chunk %}"},
        ToleratedFailurePercentage=100,
        ResultWriter=WRITER,
    )
    arn = world.start(machine({"Each": each}))
    key = json.loads(world.wait(arn)["output"])["ResultWriterDetails"]["Key"]
    counts = world.map_run(arn)["executionCounts"]
    assert (counts["succeeded"], counts["failed"], counts["total"]) == (9990, 10, 10_000)
    assert len(world.s3.json("bucket", key.replace("manifest", "SUCCEEDED_0"))) == 9990
    assert [
        json.loads(entry["Input"])["chunk"] for entry in world.s3.json("bucket", key.replace("manifest", "FAILED_0"))
    ] == list(range(999, 10_000, 1000))
    assert highest <= before + 1 + 40

    run = world.map_run(arn)["mapRunArn"]
    page = world.call("ListExecutions", mapRunArn=run, maxResults=600)
    assert len(page["executions"]) == 600
    lengths = [len(child.history.events()) for child in world.service.map_run(run).children if child]
    assert lengths.count(2) == 10_000 - KEPT_HISTORIES


def test_a_thousand_items_at_concurrency_five(world: World) -> None:
    manifest(world, list(range(1000)))
    highest = 0

    def work(payload: int) -> int:
        nonlocal highest
        with lock:
            running.append(payload)
            highest = max(highest, len(running))
        with lock:
            running.remove(payload)
        return payload

    lock, running = threading.Lock(), list[int]()
    world.functions["work"] = work
    each = distributed({"In": task("work")}, MaxConcurrency="{% $states.input.concurrency %}")
    assert world.output(machine({"Each": each}), {"concurrency": 5}) == list(range(1000))
    assert highest <= 5
