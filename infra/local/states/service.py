"""State machines, executions and Map Runs by ARN, and the calls that change them."""

from __future__ import annotations

import json
import logging
import re
import threading
import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from . import api
from .clock import Clock
from .data import MAX_BYTES, Data, too_long
from .definition import Definition
from .environment import Environment
from .errors import ApiError
from .execution import RUNNING, Execution
from .interpreter import run_execution
from .map_run import MapRun
from .parse import parse
from .ports import S3, InvokeLambda, Publish
from .reader import Problem

log = logging.getLogger(__name__)

# What AWS refuses in names: white space, brackets, wildcards, special and control characters.
NAME = re.compile(r"[^\s<>{}\[\]?*\"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}")


@dataclass
class StateMachine:
    """A registered state machine."""

    arn: str
    name: str
    text: str
    role_arn: str
    definition: Definition
    created: float
    revision: str
    settings: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class StateMachineService:
    """The service; see the package's docstring.

    `max_threads` bounds the concurrency of one Map. In memory stay the last `keep_executions` finished executions
    and of their Map Runs, as whole runs, about the last `keep_children` children.
    """

    def __init__(
        self,
        *,
        invoke_lambda: InvokeLambda,
        s3: S3,
        publish: Publish,
        clock: Clock | None = None,
        region: str = "us-east-1",
        account: str = "123456789012",
        max_threads: int = 40,
        keep_executions: int = 1000,
        keep_children: int = 20_000,
    ) -> None:
        self.clock = clock or Clock()
        self.environment = Environment(
            invoke_lambda=invoke_lambda,
            s3=s3,
            publish=publish,
            clock=self.clock,
            region=region,
            account=account,
            max_threads=max_threads,
            start_execution=self.start_execution,
            register_map_run=self._register_map_run,
            register_child=self._register_child,
            retire_map_run=self._retire_map_run,
        )
        self._keep = keep_executions
        self._keep_children = keep_children
        self._lock = threading.RLock()
        self._closed = False
        self._machines: dict[str, StateMachine] = {}
        self._executions: dict[str, Execution] = {}
        self._children: dict[str, Execution] = {}
        self._map_runs: dict[str, MapRun] = {}
        self._finished: deque[Execution] = deque()
        self._finished_runs: deque[MapRun] = deque()

    def handle(self, target: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Answer one request: HTTP status and JSON body."""
        return api.handle(self, target, body)

    def close(self) -> None:
        """Abort what runs and refuse further executions."""
        with self._lock:
            self._closed = True
            running = [execution for execution in self._executions.values() if execution.status == RUNNING]
        for execution in running:
            execution.abort()

    def create(
        self, name: str, text: str, role_arn: str, settings: dict[str, Any], tags: dict[str, str]
    ) -> StateMachine:
        """Register a state machine. The same name and definition again is the same machine."""
        if not NAME.fullmatch(name):
            raise ApiError("InvalidName", f"Invalid Name: '{name}'")
        arn = self.environment.arn("stateMachine", name)
        definition = checked(text)
        with self._lock:
            known = self._machines.get(arn)
            if known:
                if (known.text, known.role_arn) == (text, role_arn):
                    return known
                raise ApiError("StateMachineAlreadyExists", f"State Machine Already Exists: '{arn}'")
            machine = StateMachine(
                arn, name, text, role_arn, definition, self.clock.now(), str(uuid.uuid4()), settings, tags
            )
            self._machines[arn] = machine
            return machine

    def update(self, arn: str, text: str | None, role_arn: str | None, settings: dict[str, Any]) -> StateMachine:
        """Change a state machine; running executions keep the definition they started with."""
        machine = self.machine(arn)
        definition = machine.definition if text is None else checked(text)
        with self._lock:
            machine.definition = definition
            machine.text = machine.text if text is None else text
            machine.role_arn = role_arn or machine.role_arn
            machine.settings |= settings
            machine.revision = str(uuid.uuid4())
        return machine

    def delete(self, arn: str) -> None:
        """Forget a state machine; its running executions go on."""
        with self._lock:
            self._machines.pop(arn, None)

    def machine(self, arn: str) -> StateMachine:
        """A state machine by ARN."""
        with self._lock:
            machine = self._machines.get(arn)
        if machine is None:
            if not arn.startswith("arn:"):
                raise ApiError("InvalidArn", f"Invalid Arn: '{arn}'")
            raise ApiError("StateMachineDoesNotExist", f"State Machine Does Not Exist: '{arn}'")
        return machine

    def machines(self) -> list[StateMachine]:
        """All state machines, oldest first."""
        with self._lock:
            return list(self._machines.values())

    def start_execution(self, machine_arn: str, name: str | None, text: str) -> Execution:
        """Start an execution; the running one where name and input are the same."""
        machine = self.machine(machine_arn)
        name = name if name is not None else str(uuid.uuid4())
        if not NAME.fullmatch(name):
            raise ApiError("InvalidName", f"Invalid Name: '{name}'")
        data = _input(text)
        arn = self.environment.arn("execution", machine.name, name)
        with self._lock:
            if self._closed:
                raise ApiError("ServiceUnavailable", "The local Step Functions service is closed.", 503)
            known = self._executions.get(arn)
            if known:
                if known.status == RUNNING and known.input.text == text:
                    return known
                raise ApiError("ExecutionAlreadyExists", f"Execution Already Exists: '{arn}'")
            execution = Execution(
                arn=arn,
                name=name,
                machine_arn=machine.arn,
                role_arn=machine.role_arn,
                definition=machine.definition,
                data=data,
                clock=self.clock,
            )
            self._executions[arn] = execution
        execution.on_end(self._retire)
        thread = threading.Thread(
            target=run_execution,
            args=(self.environment, execution, machine.name),
            name=f"execution {name}",
            daemon=True,
        )
        thread.start()
        return execution

    def execution(self, arn: str) -> Execution:
        """An execution or Map Run child by ARN."""
        with self._lock:
            execution = self._executions.get(arn) or self._children.get(arn)
        if execution is None:
            if not arn.startswith("arn:"):
                raise ApiError("InvalidArn", f"Invalid Arn: '{arn}'")
            raise ApiError("ExecutionDoesNotExist", f"Execution Does Not Exist: '{arn}'")
        return execution

    def executions(self, machine_arn: str) -> list[Execution]:
        """A machine's executions, newest first."""
        self.machine(machine_arn)
        with self._lock:
            found = [execution for execution in self._executions.values() if execution.machine_arn == machine_arn]
        return found[::-1]

    def map_run(self, arn: str) -> MapRun:
        """A Map Run by ARN."""
        with self._lock:
            run = self._map_runs.get(arn)
        if run is None:
            raise ApiError("ResourceNotFound", f"Resource not found: '{arn}'")
        return run

    def map_runs(self, execution_arn: str) -> list[MapRun]:
        """The Map Runs of an execution, newest first."""
        self.execution(execution_arn)
        with self._lock:
            found = [run for run in self._map_runs.values() if run.execution_arn == execution_arn]
        return found[::-1]

    def _register_map_run(self, run: MapRun) -> None:
        with self._lock:
            self._map_runs[run.arn] = run

    def _register_child(self, child: Execution) -> None:
        with self._lock:
            self._children[child.arn] = child

    def _retire_map_run(self, run: MapRun) -> None:
        """Forget the children of the oldest finished Map Runs, but never those of the latest."""
        with self._lock:
            self._finished_runs.append(run)
            kept = sum(len(finished.children) for finished in self._finished_runs)
            while kept > self._keep_children and len(self._finished_runs) > 1:
                oldest = self._finished_runs.popleft()
                kept -= len(oldest.children)
                self._forget_children(oldest)

    def _retire(self, execution: Execution) -> None:
        """Forget the oldest finished executions, with their Map Runs, beyond the number to keep."""
        with self._lock:
            self._finished.append(execution)
            while len(self._finished) > self._keep:
                oldest = self._finished.popleft()
                del self._executions[oldest.arn]
                self._forget_map_runs(oldest.arn)

    def _forget_map_runs(self, execution_arn: str) -> None:
        for run in [run for run in self._map_runs.values() if run.execution_arn == execution_arn]:
            del self._map_runs[run.arn]
            self._forget_children(run)

    def _forget_children(self, run: MapRun) -> None:
        for child in run.forget_children():
            self._children.pop(child.arn, None)
            self._forget_map_runs(child.arn)


def checked(text: str) -> Definition:
    """The definition of a text; InvalidDefinition lists everything wrong with it."""
    definition, problems = parse(text)
    if definition is None:
        raise ApiError("InvalidDefinition", f"Invalid State Machine Definition: {_joined(problems)}")
    return definition


def _joined(problems: list[Problem]) -> str:
    return ", ".join(f"'{problem}'" for problem in problems if problem.severity == "ERROR")


def _input(text: str) -> Data:
    if too_long(text):
        raise ApiError("InvalidExecutionInput", f"The input is larger than {MAX_BYTES} bytes.")
    try:
        return Data(json.loads(text), text)
    except ValueError as error:
        raise ApiError("InvalidExecutionInput", f"Invalid State Machine Execution Input: '{error}'") from error
