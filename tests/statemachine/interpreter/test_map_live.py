"""Distributed Map while it runs: changed limits, and stops at any moment."""

from __future__ import annotations

import json
import threading
from typing import Any

from tests.statemachine.interpreter.world import PATIENCE, WRITER, World, distributed, machine, task

END: dict[str, Any] = {"Type": "Pass", "End": True}


def manifest(world: World, items: Any) -> None:
    world.s3.objects["bucket", "manifest.json"] = json.dumps(items).encode()


class Gate:
    """A function whose calls wait until they are let through one by one; `arrived` counts them."""

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)

    def __call__(self, payload: Any) -> Any:
        self.arrived.release()
        assert self.leave.acquire(timeout=PATIENCE)
        return payload

    def wait_for(self, calls: int) -> None:
        for _ in range(calls):
            assert self.arrived.acquire(timeout=PATIENCE)

    def open(self, calls: int = 10_000) -> None:
        self.leave.release(calls)


def test_concurrency_can_be_changed_while_the_map_runs(world: World) -> None:
    manifest(world, list(range(20)))
    gate = world.functions["work"] = Gate()
    arn = world.start(machine({"Each": distributed({"In": task("work")}, MaxConcurrency=1)}))
    gate.wait_for(1)
    run = world.map_run(arn)
    assert (run["maxConcurrency"], run["itemCounts"]["running"], run["itemCounts"]["pending"]) == (1, 1, 19)
    world.call("UpdateMapRun", mapRunArn=run["mapRunArn"], maxConcurrency=4)
    gate.wait_for(3)
    assert world.map_run(arn)["itemCounts"]["running"] == 4
    world.call("UpdateMapRun", mapRunArn=run["mapRunArn"], maxConcurrency=2)
    gate.open(2)
    gate.open()
    assert world.wait(arn)["status"] == "SUCCEEDED"
    assert world.map_run(arn)["maxConcurrency"] == 2
    code, _ = world.refused("UpdateMapRun", mapRunArn=run["mapRunArn"], maxConcurrency=4)
    assert code == "ValidationException"


def test_stopping_an_execution_aborts_its_children_but_not_their_functions(world: World) -> None:
    manifest(world, list(range(5)))
    finished = threading.Semaphore(0)
    gate = Gate()

    def work(payload: Any) -> Any:
        answer = gate(payload)
        finished.release()
        return answer

    world.functions["work"] = work
    each = distributed({"In": task("work", Next="Never"), "Never": END}, MaxConcurrency=2, ResultWriter=WRITER)
    arn = world.start(machine({"Each": each}))
    gate.wait_for(2)
    run = world.map_run(arn)["mapRunArn"]
    children = world.call("ListExecutions", mapRunArn=run)["executions"]
    ended = [threading.Event() for _ in children]
    for child, event in zip(children, ended, strict=True):
        world.service.execution(child["executionArn"]).on_end(lambda _, event=event: event.set())
    world.call("StopExecution", executionArn=arn, error="Operator", cause="enough")
    answer = world.wait(arn)
    assert (answer["status"], answer["error"], answer["cause"]) == ("ABORTED", "Operator", "enough")
    assert all(event.wait(PATIENCE) for event in ended)
    for child in children:
        assert world.call("DescribeExecution", executionArn=child["executionArn"])["status"] == "ABORTED"
        assert world.kinds(child["executionArn"])[-1] == "ExecutionAborted"
    events = len(world.history(arn))
    gate.open()
    for _ in range(2):
        assert finished.acquire(timeout=PATIENCE)
    counts = world.map_run(arn)["itemCounts"]
    assert (counts["aborted"], counts["pending"], counts["running"]) == (2, 3, 0)
    assert len(world.history(arn)) == events
    assert world.kinds(arn)[-1] == "ExecutionAborted"
    assert all(world.kinds(child["executionArn"])[-1] == "ExecutionAborted" for child in children)


def test_a_stop_at_any_moment_leaves_a_consistent_account(world: World) -> None:
    manifest(world, list(range(40)))
    definition = machine({"Each": distributed({"In": task("work")}, MaxConcurrency=8, ResultWriter=WRITER)})
    for calls in range(0, 40, 3):
        reached, seen, lock = threading.Event(), [0], threading.Lock()

        def work(payload: int, reached: Any = reached, seen: Any = seen, lock: Any = lock, calls: int = calls) -> int:
            with lock:
                seen[0] += 1
                if seen[0] >= calls:
                    reached.set()
            return payload

        world.functions["work"] = work
        arn = world.start(definition)
        assert reached.wait(PATIENCE)
        world.call("StopExecution", executionArn=arn)
        answer = world.wait(arn)
        runs = world.call("ListMapRuns", executionArn=arn)["mapRuns"]
        if answer["status"] == "SUCCEEDED" or not runs:
            continue
        run = world.service.map_run(runs[0]["mapRunArn"])
        world.until(lambda run=run: run.status != "RUNNING" and run.describe()["itemCounts"]["running"] == 0)
        counts = run.describe()["itemCounts"]
        statuses = [child.status if child else "PENDING" for child in run.children]
        assert counts["succeeded"] == statuses.count("SUCCEEDED")
        assert counts["aborted"] == statuses.count("ABORTED")
        assert counts["pending"] == statuses.count("PENDING")
        assert counts["total"] == 40
        assert world.kinds(arn)[-1] == "ExecutionAborted"
