"""The production state machine on functions that answer as a test says."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.statemachine.interpreter.world import ROLE, FunctionError, ServiceError, World
from tests.statemachine.production import rendered

BUCKET = "bucket"
RUN_ID = 7
REPORT = "s3://bucket/runs/7/report.html"
INPUT = {"job": "pack/job", "run_key": "2025-01-31"}
OPENED = {"job": "pack/job", "run_id": RUN_ID, "state": "running", "attached": False}
FINISHED = {"run_id": RUN_ID, "state": "succeeded", "error": "", "cause": "", "report": REPORT}
FAILED = {**FINISHED, "state": "failed", "error": "ChunksQuarantined", "cause": "2 chunks in quarantine"}

Answer = Mapping[str, Any] | Exception | Callable[[dict[str, Any]], Any]


class NamelessError(FunctionError):
    """A function error whose payload has no errorType."""

    def __init__(self) -> None:
        super().__init__("")
        self.payload = {"errorMessage": "RequestId: 1 Process exited before completing request"}


def failing(name: str) -> Exception:
    """What a function or the Lambda service does to make a Task fail with that error name."""
    if name == "States.Timeout":
        return TimeoutError()
    if name == "Lambda.Unknown":
        return NamelessError()
    if name.startswith("Lambda."):
        return ServiceError(name)
    return FunctionError(name, f"this is {name}")


def planned(action: str = "finish", **members: Any) -> dict[str, Any]:
    """An answer of get_chunks; with no `key` of its own it names a manifest that is not there."""
    answer = {
        "action": action,
        "step": "",
        "kind": "",
        "round": 0,
        "count": 0,
        "bucket": BUCKET,
        "key": "",
        "concurrency": 5,
        "wait_seconds": 0,
        "reason": "",
    }
    assert members.keys() <= answer.keys()
    return answer | members


@dataclass(frozen=True)
class Ended:
    """An execution that has ended: its description, and the names of the states it entered, in order."""

    arn: str
    description: Mapping[str, Any]
    visited: list[str]

    @property
    def status(self) -> str:
        return str(self.description["status"])

    @property
    def output(self) -> Any:
        return json.loads(self.description["output"])

    @property
    def error(self) -> tuple[str, str]:
        return self.description["error"], self.description["cause"]


class RunJob:
    """Deploys the production state machine and runs it. Without a script a run finds nothing to do and succeeds."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.calls: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self._rounds = itertools.count(1)
        self._scripts: dict[str, list[Answer]] = {}
        self.script("ValidateConfig", OPENED)
        self.script("GetChunks", planned())
        self.script("ProcessChunk", lambda payload: {"chunk": payload["chunk"], "state": "done", "rows": 9})
        self.script("FinishRun", FINISHED)
        for function in self._scripts:
            world.functions[f"{function}FunctionArn"] = self._functions(function)
        text = rendered()
        created = world.call("CreateStateMachine", name="run-job", definition=text, roleArn=ROLE)
        self._machine = created["stateMachineArn"]

    def script(self, function: str, *answers: Answer) -> None:
        """What the function answers, call by call; the last answer stays."""
        self._scripts[function] = list(answers)

    def answers(self, function: str) -> list[Answer]:
        """What the function is going to answer."""
        return list(self._scripts[function])

    def work(self, chunks: int, step: str = "update", kind: str = "update", **members: Any) -> dict[str, Any]:
        """A round of get_chunks over so many chunks, with its manifest in place."""
        number = next(self._rounds)
        key = f"runs/{RUN_ID}/{step}/round-{number}.json"
        manifest = [{"chunk": chunk, "rows": 10} for chunk in range(1, chunks + 1)]
        self.world.s3.objects[BUCKET, key] = json.dumps(manifest).encode()
        return planned("work", step=step, kind=kind, round=number, count=chunks, key=key, **members)

    def run(self, data: Mapping[str, Any] | None = None) -> Ended:
        """Start an execution and wait for its end."""
        text = json.dumps(INPUT if data is None else data)
        arn = self.world.call("StartExecution", stateMachineArn=self._machine, input=text)["executionArn"]
        description = self.world.wait(arn)
        return Ended(arn, description, self.visited(arn))

    def visited(self, arn: str) -> list[str]:
        """Names of the states that an execution entered."""
        entered = [event.get("stateEnteredEventDetails") for event in self.world.history(arn)]
        return [details["name"] for details in entered if details]

    def children(self, ended: Ended) -> list[dict[str, Any]]:
        """Descriptions of all children of all Map Runs."""
        runs = self.world.call("ListMapRuns", executionArn=ended.arn)["mapRuns"]
        listed = [self.world.call("ListExecutions", mapRunArn=run["mapRunArn"])["executions"] for run in runs]
        arns = [child["executionArn"] for children in listed for child in children]
        return [self.world.call("DescribeExecution", executionArn=arn) for arn in arns]

    def _functions(self, function: str) -> Callable[[dict[str, Any]], Any]:
        def answer(payload: dict[str, Any]) -> Any:
            self.calls[function].append(payload)
            script = self._scripts[function]
            given = script.pop(0) if len(script) > 1 else script[0]
            if isinstance(given, Exception):
                raise given
            return given(payload) if callable(given) else given

        return answer
