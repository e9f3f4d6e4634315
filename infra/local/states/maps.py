"""Runs Map states: iterations inside the execution (INLINE), or one child execution an item (DISTRIBUTED)."""

from __future__ import annotations

import json
import threading
import uuid
from typing import TYPE_CHECKING, Any

from .clock import Scope
from .crew import Crew
from .data import Data, limited
from .definition import Definition, Map
from .errors import EXCEED_TOLERATED_FAILURES, ITEM_READER_FAILED, DeadlinePassed, StateError, Stopped
from .execution import ABORTED, FAILED, RUNNING, SUCCEEDED, Execution
from .interpreter import Branch, Visit, item_context, run_execution
from .map_io import ResultWriter, read_items
from .map_run import MapRun

if TYPE_CHECKING:
    from .environment import Environment


class Maps:
    """Runs Map states."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def run(self, visit: Visit, state: Map) -> Data:
        """One attempt of a Map; its result. StateError for every failure."""
        items = self._items(visit, state)
        concurrency = int(visit.evaluate(state.max_concurrency) or 0)
        length = 0 if state.reader else len(items)
        if state.distributed:
            attempt: _Inline | _Distributed = _Distributed(self._environment, visit, state, items, concurrency)
        else:
            attempt = _Inline(self._environment, visit, state, items, concurrency)
        visit.branch.record("MapStateStarted", {"length": length})
        try:
            result = attempt.run()
        except StateError:
            visit.branch.record("MapStateFailed")
            raise
        visit.branch.record("MapStateSucceeded")
        return result

    def _items(self, visit: Visit, state: Map) -> list[Any]:
        if state.reader:
            limit = visit.evaluate(state.reader.max_items)
            return read_items(self._environment.s3, visit.evaluate(state.reader.arguments), limit)
        items = visit.data.value if state.items is None else visit.evaluate(state.items)
        if not isinstance(items, list):
            raise StateError(ITEM_READER_FAILED, f"The items of the state '{state.name}' are not an array.")
        return items


class _Inline:
    def __init__(self, environment: Environment, visit: Visit, state: Map, items: list[Any], concurrency: int) -> None:
        self._environment = environment
        self._visit = visit
        self._state = state
        self._items = items
        self._inputs = [visit.item_input(state.selector, index, item) for index, item in enumerate(items)]
        self._results: list[Any] = [None] * len(items)
        self._lock = threading.Lock()
        self._ended: Exception | None = None
        self._group = Scope(environment.clock, visit.branch.scope)
        self._crew = Crew(len(items), self._iterate, concurrency, environment.max_threads, f"Map {state.name}")

    def run(self) -> Data:
        branch = self._visit.branch
        self._started = branch.last_event
        try:
            self._crew.run(branch.scope)
        finally:
            self._group.cancel()
            self._group.close()
        if self._ended:
            raise self._ended
        return limited(self._results, f"result of the state '{self._state.name}'")

    def _iterate(self, index: int) -> None:
        outer = self._visit.branch
        scope = Scope(self._environment.clock, self._group)
        context = {**outer.context, **item_context(index, self._items[index])}
        processor, details = self._state.processor, {"name": self._state.name, "index": index}
        branch = Branch(
            self._environment,
            outer.execution,
            processor=processor,
            scope=scope,
            context=context,
            last_event=self._started,
            variables=outer.variables,
        )
        try:
            branch.record("MapIterationStarted", details)
            try:
                self._results[index] = branch.run(self._inputs[index]).value
            except StateError as error:
                branch.record("MapIterationFailed", details)
                self._end(error, branch.last_event)
            else:
                branch.record("MapIterationSucceeded", details)
                with self._lock:
                    outer.last_event = max(outer.last_event, branch.last_event)
        except Stopped:
            return
        except (StateError, DeadlinePassed) as error:
            self._end(error, branch.last_event)
        finally:
            scope.close()

    def _end(self, error: Exception, last_event: int) -> None:
        """The first failure ends the Map; the other iterations are cancelled."""
        with self._lock:
            if self._ended:
                return
            self._ended = error
            self._visit.branch.last_event = last_event
        self._group.cancel()
        self._crew.stop()


class _Distributed:
    def __init__(self, environment: Environment, visit: Visit, state: Map, items: list[Any], concurrency: int) -> None:
        self._environment = environment
        self._visit = visit
        self._state = state
        self._items = items
        self._failure: StateError | None = None
        writer = visit.evaluate(state.result_writer)
        self._writer = None if state.result_writer is None else ResultWriter(environment.s3, writer)
        self._definition = Definition(state.processor, None)
        execution = visit.branch.execution
        machine = execution.machine_arn.rpartition(":")[2].partition("/")[0]
        self._path = f"{machine}/{state.label}"
        self._run = MapRun(
            arn=environment.arn("mapRun", self._path, str(uuid.uuid4())),
            execution_arn=execution.arn,
            machine_arn=environment.arn("stateMachine", self._path),
            total=len(items),
            max_concurrency=concurrency,
            tolerated_percentage=visit.evaluate(state.tolerated_percentage),
            tolerated_count=visit.evaluate(state.tolerated_count),
            clock=environment.clock,
        )
        self._crew = Crew(len(items), self._child, concurrency, environment.max_threads, f"Map Run {state.label}")
        self._run.on_resize = self._crew.resize

    def run(self) -> Data:
        self._environment.register_map_run(self._run)
        try:
            return self._work()
        finally:
            self._run.close()
            if self._run.status == RUNNING:
                self._run.finish(FAILED)
            self._environment.retire_map_run(self._run)

    def _work(self) -> Data:
        branch, run = self._visit.branch, self._run
        try:
            branch.record("MapRunStarted", {"mapRunArn": run.arn})
            self._crew.run(branch.scope)
            # Past the threshold, children still run: what is written below must be their last word.
            run.close()
            result = self._result()
        except (Stopped, DeadlinePassed):
            run.finish(ABORTED)
            raise
        except StateError as error:
            run.finish(FAILED)
            branch.record("MapRunFailed", error.details())
            raise
        run.finish(SUCCEEDED)
        branch.record("MapRunSucceeded")
        return result

    def _result(self) -> Data:
        result: Any = self._writer.write(self._run, self._items) if self._writer else None
        if self._failure:
            raise self._failure
        if self._run.exceeded():
            raise StateError(EXCEED_TOLERATED_FAILURES, "The specified tolerated failure threshold was exceeded")
        if result is None:
            result = [_outcome(child) for child in self._run.children if child]
        return limited(result, f"result of the state '{self._state.name}'")

    def _child(self, index: int) -> None:
        """One item: a child execution that sees nothing of the parent but its input."""
        try:
            data = self._visit.item_input(self._state.selector, index, self._items[index])
            child = self._new_child(data)
            self._run.begin(index, child)
        except Stopped:
            return
        except StateError as error:
            self._failure = self._failure or error
            self._crew.stop()
            return
        self._environment.register_child(child)
        child.on_end(self._run.ended)
        run_execution(self._environment, child, self._path)
        if self._run.exceeded():
            self._crew.stop()

    def _new_child(self, data: Data) -> Execution:
        parent = self._visit.branch.execution
        name = str(uuid.uuid4())
        return Execution(
            arn=self._environment.arn("execution", self._path, name),
            name=name,
            machine_arn=self._run.machine_arn,
            role_arn=parent.role_arn,
            definition=self._definition,
            data=data,
            clock=self._environment.clock,
            parent=parent.scope,
            map_run_arn=self._run.arn,
        )


def _outcome(child: Execution) -> Any:
    """A child in the Map's result where there is no ResultWriter."""
    return json.loads(child.output) if child.output is not None else child.record()
