"""One execution: what DescribeExecution answers, its history, and the single place where it ends."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

from .clock import Clock, Scope
from .data import NOT_TRUNCATED, Data, iso
from .definition import Definition
from .history import History
from .values import to_jsonata

RUNNING, SUCCEEDED, FAILED, TIMED_OUT, ABORTED = "RUNNING", "SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"
INCLUDED = {"included": True}
Listener = Callable[["Execution"], None]


class Execution:
    """A top-level execution, or with `map_run_arn` a child of a Map Run."""

    def __init__(
        self,
        *,
        arn: str,
        name: str,
        machine_arn: str,
        role_arn: str,
        definition: Definition,
        data: Data,
        clock: Clock,
        parent: Scope | None = None,
        map_run_arn: str | None = None,
    ) -> None:
        self.arn = arn
        self.name = name
        self.machine_arn = machine_arn
        self.role_arn = role_arn
        self.definition = definition
        self.input = data
        self.map_run_arn = map_run_arn
        self.status = RUNNING
        self.output: str | None = None
        self.error: str | None = None
        self.cause: str | None = None
        self.start = clock.now()
        self.stop: float | None = None
        self.scope = Scope(clock, parent, definition.timeout or math.inf)
        self.history = History(clock)
        self._clock = clock
        self._lock = threading.Lock()
        self._listeners: list[Listener] = []
        details = {"input": data.text, "inputDetails": NOT_TRUNCATED, "roleArn": role_arn}
        self.first_event = self.history.add("ExecutionStarted", 0, details)

    def on_end(self, listener: Listener) -> None:
        """Call `listener` once the execution has ended, at once if it already has."""
        with self._lock:
            if self.status == RUNNING:
                self._listeners.append(listener)
                return
        listener(self)

    def succeed(self, data: Data, previous: int) -> None:
        """End with an output."""
        self._end(SUCCEEDED, previous, {"output": data.text, "outputDetails": NOT_TRUNCATED}, output=data.text)

    def fail(self, error: str | None, cause: str | None, previous: int) -> None:
        """End with an error that nothing caught."""
        self._end(FAILED, previous, _present(error=error, cause=cause), error=error, cause=cause)

    def time_out(self) -> None:
        """End because the execution's own TimeoutSeconds has passed."""
        self._end(TIMED_OUT, 0, {"error": "States.Timeout"})

    def abort(self, error: str | None = None, cause: str | None = None) -> None:
        """End from outside. The thread that runs the states notices at its next step."""
        self._end(ABORTED, 0, _present(error=error, cause=cause), error=error, cause=cause)

    def _end(
        self,
        status: str,
        previous: int,
        details: dict[str, Any],
        *,
        output: str | None = None,
        error: str | None = None,
        cause: str | None = None,
    ) -> None:
        with self._lock:
            if self.status != RUNNING:
                return
            self.scope.cancel()
            self.scope.close()
            kind = "".join(part.capitalize() for part in status.split("_"))
            self.history.add(f"Execution{kind}", previous, details)
            self.output, self.error, self.cause = output, error, cause
            self.stop = self._clock.now()
            self.status = status
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener(self)

    def context(self, machine_name: str) -> dict[str, Any]:
        """The parts of `$states.context` that stay the same for the whole execution."""
        return {
            "Execution": {
                "Id": self.arn,
                "Input": to_jsonata(self.input.value),
                "Name": self.name,
                "RoleArn": self.role_arn,
                "StartTime": iso(self.start),
                "RedriveCount": 0,
            },
            "StateMachine": {"Id": self.machine_arn, "Name": machine_name},
        }

    def summary(self) -> dict[str, Any]:
        """The execution as ListExecutions shows it."""
        answer = {
            "executionArn": self.arn,
            "stateMachineArn": self.machine_arn,
            "name": self.name,
            "status": self.status,
            "startDate": self.start,
            "redriveCount": 0,
        }
        answer |= _present(stopDate=self.stop, mapRunArn=self.map_run_arn)
        return answer | ({"itemCount": 1} if self.map_run_arn else {})

    def describe(self) -> dict[str, Any]:
        """The execution as DescribeExecution shows it."""
        answer = self.summary()
        answer.pop("itemCount", None)
        answer |= {
            "input": self.input.text,
            "inputDetails": INCLUDED,
            "redriveStatus": "NOT_REDRIVABLE",
            "redriveStatusReason": f"Execution is {self.status} and cannot be redriven",
        }
        if self.output is not None:
            answer |= {"output": self.output, "outputDetails": INCLUDED}
        return answer | _present(error=self.error, cause=self.cause)

    def record(self) -> dict[str, Any]:
        """The execution as ResultWriter files and startExecution.sync:2 show it, JSON still as text."""
        pairs = {
            "ExecutionArn": self.arn,
            "Input": self.input.text,
            "InputDetails": {"Included": True},
            "Name": self.name,
            "Output": self.output,
            "OutputDetails": {"Included": True} if self.output is not None else None,
            "Error": self.error if self.status != TIMED_OUT else "States.Timeout",
            "Cause": self.cause,
            "RedriveCount": 0,
            "RedriveStatus": "NOT_REDRIVABLE",
            "RedriveStatusReason": f"Execution is {self.status} and cannot be redriven",
            "StartDate": iso(self.start),
            "StateMachineArn": self.machine_arn,
            "Status": self.status,
            "StopDate": iso(self.stop) if self.stop is not None else None,
        }
        return _present(**pairs)


def _present(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}
