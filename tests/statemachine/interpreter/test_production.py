"""The state machine that is deployed, unmodified, on fake functions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.statemachine.interpreter.world import ROLE, FunctionError, World

FILE = Path(__file__).parents[3] / "statemachines" / "run_job.asl.json"
INPUT = json.dumps({"job": "pack/job", "run_key": "2025-01-31"})


class Job:
    """Functions that work off `rounds` of chunks."""

    def __init__(self, world: World, rounds: list[int]) -> None:
        self.world = world
        self.rounds = rounds
        self.worked: list[dict[str, Any]] = []
        self.finished: list[dict[str, Any]] = []
        self.end = {"state": "succeeded", "report": "s3://bucket/report.html"}
        world.functions |= {
            "ValidateConfigFunctionArn": lambda payload: {"job": payload["job"], "run_id": 7, "state": "running"},
            "GetChunksFunctionArn": self.plan,
            "ProcessChunkFunctionArn": self.work,
            "FinishRunFunctionArn": self.finish,
        }

    def plan(self, payload: dict[str, Any]) -> dict[str, Any]:
        count = self.rounds.pop(0) if self.rounds else 0
        manifest = json.dumps([{"chunk": n, "rows": 10} for n in range(count)])
        self.world.s3.objects["bucket", "manifest.json"] = manifest.encode()
        action = "work" if count else "finish"
        place = {"bucket": "bucket", "key": "manifest.json", "concurrency": 2, "count": count}
        return {"action": action, "step": "update", "kind": "update", "round": 1, "wait_seconds": 0, **place}

    def work(self, payload: dict[str, Any]) -> dict[str, Any]:
        self.worked.append(payload)
        return {"rows": 10}

    def finish(self, payload: dict[str, Any]) -> dict[str, Any]:
        self.finished.append(payload)
        return self.end

    def run(self) -> tuple[str, dict[str, Any]]:
        """Deploy and run; the execution's ARN and description."""
        text = FILE.read_text().replace("${Partition}", "aws")
        text = re.sub(r"\$\{(\w+)\}", r"\1", text)
        arn = self.world.call("CreateStateMachine", name="run-job", definition=text, roleArn=ROLE)["stateMachineArn"]
        started = self.world.call("StartExecution", stateMachineArn=arn, input=INPUT)
        return started["executionArn"], self.world.wait(started["executionArn"])


def test_rounds_until_nothing_is_left(world: World) -> None:
    job = Job(world, [3, 1])
    arn, answer = job.run()
    assert answer["status"] == "SUCCEEDED", answer
    assert len(world.call("ListMapRuns", executionArn=arn)["mapRuns"]) == 2
    assert [chunk["chunk"] for chunk in sorted(job.worked[:3], key=lambda chunk: chunk["chunk"])] == [0, 1, 2]
    assert all((chunk["job"], chunk["run_id"], chunk["step"]) == ("pack/job", 7, "update") for chunk in job.worked)
    assert len(job.finished) == 1


def test_failed_chunks_are_left_to_the_next_round(world: World) -> None:
    job = Job(world, [2, 1])

    def work(payload: dict[str, Any]) -> dict[str, Any]:
        job.worked.append(payload)
        if len(job.worked) == 1:
            raise FunctionError("TerminalError")
        return {"rows": 10}

    world.functions["ProcessChunkFunctionArn"] = work
    arn, answer = job.run()
    assert answer["status"] == "SUCCEEDED", answer
    statuses = [
        child["status"]
        for run in world.call("ListMapRuns", executionArn=arn)["mapRuns"]
        for child in world.call("ListExecutions", mapRunArn=run["mapRunArn"])["executions"]
    ]
    assert sorted(statuses) == ["FAILED", "SUCCEEDED", "SUCCEEDED"]


@pytest.mark.parametrize("function", ["ValidateConfigFunctionArn", "GetChunksFunctionArn", "FinishRunFunctionArn"])
def test_a_terminal_error_fails_the_execution(world: World, function: str) -> None:
    job = Job(world, [])
    job.end = {"state": "failed", "error": "TerminalError", "cause": "no", "report": "s3://bucket/report.html"}

    def broken(payload: Any) -> Any:
        raise FunctionError("TerminalError", "no such table")

    world.functions[function] = broken
    _, answer = job.run()
    assert (answer["status"], answer["error"]) == ("FAILED", "TerminalError")
