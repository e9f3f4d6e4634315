"""Runs the states of an execution: one Branch for the machine, one for each iteration of an INLINE Map."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .clock import Scope
from .data import Data, entered, epoch, exited, iso, limited, to_bytes
from .definition import Choice, Fail, Map, Processor, State, Task, Wait
from .errors import (
    DATA_LIMIT_EXCEEDED,
    NO_CHOICE_MATCHED,
    QUERY_EVALUATION_ERROR,
    RUNTIME,
    DeadlinePassed,
    EvaluationError,
    StateError,
    Stopped,
)
from .execution import Execution
from .jsonata import Template
from .retry import Attempts, catcher_for
from .values import to_jsonata

if TYPE_CHECKING:
    from .environment import Environment

log = logging.getLogger(__name__)

MAX_VARIABLES_BYTES = 10 * 1024 * 1024


class Outcome(NamedTuple):
    """What a state leaves behind. `assigned` holds new variables as JSON values."""

    output: Data
    next: str | None
    assigned: dict[str, Any]


def run_execution(environment: Environment, execution: Execution, machine_name: str) -> None:
    """Run an execution to its end on this thread; never raises."""
    branch = Branch(
        environment,
        execution,
        processor=execution.definition.processor,
        scope=execution.scope,
        context=execution.context(machine_name),
        last_event=execution.first_event,
    )
    try:
        execution.succeed(branch.run(execution.input), branch.last_event)
    except StateError as error:
        execution.fail(error.error, error.cause, branch.last_event)
    except DeadlinePassed:
        execution.time_out()
    except Stopped:
        execution.abort()
    except Exception as error:
        log.exception("%s broke the interpreter", execution.arn)
        execution.fail(RUNTIME, f"Internal error of the local interpreter: {error!r}", branch.last_event)


class Branch:
    """A sequence of states with its own variables, inside one execution."""

    def __init__(
        self,
        environment: Environment,
        execution: Execution,
        *,
        processor: Processor,
        scope: Scope,
        context: Mapping[str, Any],
        last_event: int,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        self.environment = environment
        self.execution = execution
        self.processor = processor
        self.scope = scope
        self.context = context
        self.last_event = last_event
        # As the JSONata library takes them, with their sizes beside them.
        self.variables: dict[str, Any] = dict(variables or {})
        self._sizes: dict[str, int] = {}

    def run(self, data: Data) -> Data:
        """Run from StartAt to the end; the last state's output."""
        name: str | None = self.processor.start_at
        while name is not None:
            data, name = self._visit(self.processor.states[name], data)
        return data

    def record(self, kind: str, details: Mapping[str, Any] | None = None) -> int:
        """Add an event behind this branch's last one."""
        self.last_event = self.execution.history.add(kind, self.last_event, details, self.scope)
        return self.last_event

    def _visit(self, state: State, data: Data) -> tuple[Data, str | None]:
        self.scope.check()
        at = self.record(f"{state.type}StateEntered", entered(state.name, data))
        visit = Visit(self, state, data, at)
        try:
            outcome = visit.run()
        except EvaluationError as error:
            raise visit.evaluation_failed(error) from error
        assigned = self._assign(outcome.assigned)
        self.record(f"{state.type}StateExited", exited(state.name, outcome.output, assigned))
        return outcome.output, outcome.next

    def _assign(self, values: Mapping[str, Any]) -> dict[str, str]:
        texts = {}
        for name, value in values.items():
            texts[name] = limited(value, f"variable '{name}'").text
            self.variables[name] = to_jsonata(value)
            self._sizes[name] = len(to_bytes(texts[name]))
        if sum(self._sizes.values()) > MAX_VARIABLES_BYTES:
            raise StateError(DATA_LIMIT_EXCEEDED, "The variables of the execution together exceed 10 MiB.")
        return texts


class Visit:
    """One visit of one state, with all its attempts."""

    def __init__(self, branch: Branch, state: State, data: Data, event: int) -> None:
        self.branch = branch
        self.state = state
        self.data = data
        self.event = event
        self._input = to_jsonata(data.value)
        self._context = {
            **branch.context,
            "State": {"EnteredTime": iso(branch.scope.clock.now()), "Name": state.name, "RetryCount": 0},
        }

    def run(self) -> Outcome:
        """Do what the state says."""
        state = self.state
        if isinstance(state, Task | Map):
            return self._attempts(state)
        if isinstance(state, Choice):
            return self._choose(state)
        if isinstance(state, Fail):
            raise self._failure(state)
        if isinstance(state, Wait):
            self._wait(state)
        return self._leave(state.next, state.output, state.assign, self.data)

    def bindings(self, **members: Any) -> dict[str, Any]:
        """Variables and `$states`; `members` are `result` or `errorOutput`."""
        states = {"input": self._input, "context": self._context, **members}
        return {**self.branch.variables, "states": states}

    def evaluate(self, template: Template | None) -> Any:
        """A field's value before the state's work; None for an absent field."""
        return None if template is None else template.evaluate(self.bindings())

    def item_input(self, selector: Template | None, index: int, item: Any) -> Data:
        """What a Map hands to its processor for one item."""
        if selector is not None:
            context = {**self._context, **item_context(index, item)}
            states = {"input": self._input, "context": context}
            item = selector.evaluate({**self.branch.variables, "states": states})
        return limited(item, f"input of iteration {index} of the state '{self.state.name}'")

    def evaluation_failed(self, error: EvaluationError) -> StateError:
        """Record the failed evaluation; the error as Retry and Catch see it."""
        cause = (
            f"An error occurred while executing the state '{self.state.name}' "
            f"(entered at the event id #{self.event}). {error.cause}"
        )
        details = {"error": error.error, "cause": cause, "location": error.field, "state": self.state.name}
        self.branch.record("EvaluationFailed", details)
        return StateError(QUERY_EVALUATION_ERROR, cause)

    def _leave(
        self,
        target: str | None,
        output: Template | None,
        assign: Mapping[str, Template],
        default: Data,
        **members: Any,
    ) -> Outcome:
        """Assign and Output see the same, old variables: both are evaluated before either takes effect."""
        if output is None and not assign:
            return Outcome(default, target, {})
        bindings = self.bindings(**{name: to_jsonata(value) for name, value in members.items()})
        assigned = {name: template.evaluate(bindings) for name, template in assign.items()}
        if output is not None:
            default = limited(output.evaluate(bindings), f"output of the state '{self.state.name}'")
        return Outcome(default, target, assigned)

    def _choose(self, state: Choice) -> Outcome:
        bindings = self.bindings()
        for rule in state.rules:
            if rule.condition.evaluate(bindings):
                return self._leave(rule.next, rule.output, rule.assign, self.data)
        if state.next is None:
            raise StateError(
                NO_CHOICE_MATCHED,
                f"An error occurred while executing the state '{state.name}' (entered at the event id "
                f"#{self.event}). No condition of the Choice state is true and it has no Default.",
            )
        return self._leave(state.next, state.output, state.assign, self.data)

    def _failure(self, state: Fail) -> StateError:
        return StateError(self.evaluate(state.error), self.evaluate(state.cause))

    def _wait(self, state: Wait) -> None:
        if state.seconds is not None:
            seconds = float(self.evaluate(state.seconds))
        else:
            text = self.evaluate(state.timestamp)
            try:
                seconds = epoch(text) - self.branch.scope.clock.now()
            except ValueError as error:
                raise EvaluationError(f"'{text}' is not an RFC 3339 timestamp.", "Timestamp") from error
        self.branch.scope.sleep(max(0.0, seconds))

    def _attempts(self, state: Task | Map) -> Outcome:
        attempts = Attempts(state.retry, self.branch.environment.chance)
        while True:
            try:
                return self._attempt(state)
            except StateError as error:
                failure = self.evaluation_failed(error) if isinstance(error, EvaluationError) else error
                delay = attempts.next_delay(failure.error)
                if delay is None:
                    return self._caught(state, failure)
            self.branch.scope.sleep(delay)
            retried = {**self._context["State"], "RetryCount": attempts.count}
            self._context = {**self._context, "State": retried}

    def _attempt(self, state: Task | Map) -> Outcome:
        environment = self.branch.environment
        result = environment.maps.run(self, state) if isinstance(state, Map) else environment.tasks.run(self, state)
        return self._leave(state.next, state.output, state.assign, result, result=result.value)

    def _caught(self, state: Task | Map, error: StateError) -> Outcome:
        catcher = catcher_for(state.catch, error.error)
        if catcher is None:
            raise error
        output = error.output()
        default = limited(output, f"error of the state '{state.name}'")
        return self._leave(catcher.next, catcher.output, catcher.assign, default, errorOutput=output)

    def seconds(self, template: Template | None) -> float:
        """A state's TimeoutSeconds; infinite without one."""
        return math.inf if template is None else float(self.evaluate(template))


def item_context(index: int, item: Any) -> dict[str, Any]:
    """The part of `$states.context` that tells an iteration its item."""
    return {"Map": {"Item": {"Index": index, "Value": to_jsonata(item)}}}
