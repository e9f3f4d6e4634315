"""Reads a definition and refuses, by state and field, whatever the interpreter would not run as AWS does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from .data import epoch
from .definition import Choice, ChoiceRule, Definition, Fail, Map, Pass, Processor, State, Succeed, Task, Wait
from .jsonata import Constant
from .parse_catching import read_catch, read_retry
from .parse_services import read_integration, read_item_reader, read_result_writer
from .reader import INPUT, MAX_SECONDS, NOT_HERE, RESULT, SCHEMA, Level, Problem, Reader

MAX_DEFINITION_BYTES = 1_048_576
MAX_NAME = 80
MAX_LABEL = 40


def parse(text: str) -> tuple[Definition | None, list[Problem]]:
    """The definition, or None, with every error and warning found."""
    if len(text.encode()) > MAX_DEFINITION_BYTES:
        return None, [Problem(SCHEMA, "The definition is larger than 1 MiB.", "")]
    try:
        source = json.loads(text)
    except ValueError as error:
        return None, [Problem("INVALID_JSON_DESCRIPTION", str(error), "")]
    parser = _Parser()
    definition = parser.machine(source)
    if any(problem.severity == "ERROR" for problem in parser.problems):
        return None, parser.problems
    return definition, parser.problems


class _Parser:
    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self._names: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self._kinds: dict[str, Callable[[Reader, str], State]] = {
            "Task": self._task,
            "Pass": self._pass,
            "Choice": self._choice,
            "Wait": self._wait,
            "Map": self._map,
            "Succeed": self._succeed,
            "Fail": self._fail,
        }

    def machine(self, source: Any) -> Definition:
        level = Level()
        reader = Reader(source, "", "State machine", problems=self.problems, level=level)
        reader.only("QueryLanguage", "JSONata", required=True)
        reader.only("Version", "1.0")
        timeout = reader.integer("TimeoutSeconds", 0, 1, MAX_SECONDS) if reader.has("TimeoutSeconds") else None
        processor = self._processor(reader, level)
        reader.finish()
        self._check_variables(level, frozenset())
        return Definition(processor, timeout)

    def _processor(self, reader: Reader, level: Level) -> Processor:
        """The members StartAt and States of a machine or ItemProcessor."""
        start = reader.get("StartAt", str, "", required=True)
        sources = reader.get("States", dict, {}, required=True)
        states = {}
        for name, source in sources.items():
            location = f"{reader.location}/States/{name}"
            own = Reader(source, location, f"State '{name}'", problems=self.problems, level=level)
            self._check_name(own, name)
            kind = own.get("Type", str, "", required=True)
            own.only("QueryLanguage", "JSONata")
            if kind in self._kinds:
                states[name] = self._kinds[kind](own, name)
                own.finish()
            elif kind:
                supported = ", ".join(self._kinds)
                own.problem(f"State '{name}': Type '{kind}' is not one of {supported}.", "Type", NOT_HERE)
        if len(states) == len(sources):
            self._check_graph(reader, start, states)
        return Processor(start, states)

    def _check_name(self, reader: Reader, name: str) -> None:
        if not 0 < len(name) <= MAX_NAME:
            reader.problem(f"State '{name}': a state name has 1 to {MAX_NAME} characters, not {len(name)}.")
        if name in self._names:
            reader.problem(
                f"State '{name}': the name is already used at {self._names[name]}.", code="DUPLICATE_STATE_NAME"
            )
        self._names[name] = reader.location

    def _check_graph(self, reader: Reader, start: str, states: dict[str, State]) -> None:
        reached: set[str] = set()
        pending = [("StartAt", start)]
        while pending:
            origin, name = pending.pop()
            if name not in states:
                text = f"{origin} leads to '{name}', which does not exist."
                self._note("MISSING_TRANSITION_TARGET", text, reader.location)
            elif name not in reached:
                reached.add(name)
                pending += [(f"State '{name}'", target) for target in _targets(states[name])]
        for name in states.keys() - reached:
            where = f"{reader.location}/States/{name}"
            self._note("MISSING_TRANSITION_TARGET", f"State '{name}' is not reachable.", where)
        if states and not any(_ends(states[name]) for name in reached):
            self._note("MISSING_END_STATE", "No state ends the execution.", f"{reader.location}/States")

    def _note(self, code: str, text: str, location: str, severity: str = "ERROR") -> None:
        self.problems.append(Problem(code, text, location, severity))

    def _check_variables(self, level: Level, outer: frozenset[str]) -> None:
        visible = outer | level.assigned
        for name, location in level.used:
            if name not in visible:
                text = f"Variable '${name}' is not assigned anywhere this state can see."
                self._note("UNKNOWN_VARIABLE", text, location, "WARNING")
        for inner, distributed in level.inner:
            for name in sorted(() if distributed else inner.assigned & visible):
                text = f"Variable '{name}' is assigned both in an INLINE Map and outside of it."
                self._note(SCHEMA, text, "")
            self._check_variables(inner, frozenset() if distributed else visible)

    def _pass(self, reader: Reader, name: str) -> State:
        following = _next(reader)
        output, assign = reader.template("Output", INPUT), reader.assignments(INPUT)
        return Pass(name=name, type="Pass", next=following, output=output, assign=assign)

    def _succeed(self, reader: Reader, name: str) -> State:
        return Succeed(name=name, type="Succeed", output=reader.template("Output", INPUT))

    def _fail(self, reader: Reader, name: str) -> State:
        return Fail(name=name, type="Fail", error=reader.string("Error"), cause=reader.string("Cause"))

    def _wait(self, reader: Reader, name: str) -> State:
        seconds, timestamp = reader.number("Seconds", 0, MAX_SECONDS), reader.string("Timestamp")
        if (seconds is None) == (timestamp is None):
            reader.problem(f"{reader.owner}: needs either 'Seconds' or 'Timestamp'.")
        if isinstance(timestamp, Constant):
            _check_timestamp(reader, timestamp.value)
        return Wait(
            name=name,
            type="Wait",
            next=_next(reader),
            output=reader.template("Output", INPUT),
            assign=reader.assignments(INPUT),
            seconds=seconds,
            timestamp=timestamp,
        )

    def _choice(self, reader: Reader, name: str) -> State:
        return Choice(
            name=name,
            type="Choice",
            next=reader.get("Default", str),
            output=reader.template("Output", INPUT),
            assign=reader.assignments(INPUT),
            rules=tuple(_rule(entry) for entry in reader.entries("Choices", "rule", required=True)),
        )

    def _task(self, reader: Reader, name: str) -> State:
        return Task(
            name=name,
            type="Task",
            next=_next(reader),
            output=reader.template("Output", RESULT),
            assign=reader.assignments(RESULT),
            retry=read_retry(reader),
            catch=read_catch(reader),
            integration=read_integration(reader),
            arguments=reader.template("Arguments", INPUT),
            timeout=reader.number("TimeoutSeconds", 1, MAX_SECONDS),
        )

    def _map(self, reader: Reader, name: str) -> State:
        inner = Level()
        own = reader.nested("ItemProcessor", required=True, level=inner)
        distributed = _is_distributed(own)
        processor = self._processor(own, inner)
        own.finish()
        reader.level.inner.append((inner, distributed))
        # The fields of the distributed kind stay unread, and so are refused by name, on an INLINE Map.
        source = read_item_reader(reader) if distributed else None
        if reader.has("Items") and source:
            reader.problem(f"{reader.owner}: has both 'Items' and 'ItemReader'.", "Items")
        return Map(
            name=name,
            type="Map",
            next=_next(reader),
            output=reader.template("Output", RESULT),
            assign=reader.assignments(RESULT),
            retry=read_retry(reader),
            catch=read_catch(reader),
            processor=processor,
            distributed=distributed,
            label=self._label(reader, name) if distributed else "",
            items=reader.array("Items"),
            selector=reader.template("ItemSelector", INPUT),
            reader=source,
            result_writer=read_result_writer(reader) if distributed else None,
            max_concurrency=reader.number("MaxConcurrency", 0, 10**9),
            tolerated_percentage=reader.number("ToleratedFailurePercentage", 0, 100, False) if distributed else None,
            tolerated_count=reader.number("ToleratedFailureCount", 0, 10**9) if distributed else None,
        )

    def _label(self, reader: Reader, name: str) -> str:
        label = reader.get("Label", str, "")
        if reader.has("Label") and not re.fullmatch(rf"[A-Za-z0-9_.-]{{1,{MAX_LABEL}}}", label):
            text = f"'Label' has 1 to {MAX_LABEL} characters of A-Z a-z 0-9 _ . -, not '{label}'."
            reader.problem(f"{reader.owner}: {text}", "Label")
        if not label:
            plain = re.sub(r"[^A-Za-z0-9_-]", "", name)[:31]
            label = f"{plain}{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        if label in self._labels:
            reader.problem(f"{reader.owner}: Label '{label}' is also used by '{self._labels[label]}'.", "Label")
        self._labels[label] = name
        return str(label)


def _next(reader: Reader) -> str | None:
    target: str | None = reader.get("Next", str)
    end = reader.get("End", bool, False)
    if (target is None) == (not end):
        reader.problem(f"{reader.owner}: needs either 'Next' or 'End': true.")
    return target


def _check_timestamp(reader: Reader, value: object) -> None:
    try:
        epoch(str(value))
    except ValueError:
        reader.problem(f"{reader.owner}: 'Timestamp' is an RFC 3339 timestamp, not '{value}'.", "Timestamp")


def _rule(entry: Reader) -> ChoiceRule:
    condition = entry.boolean("Condition")
    if condition is None:
        entry.problem(f"{entry.owner}: field 'Condition' is missing.", "Condition")
        condition = Constant(False)
    target = entry.get("Next", str, "", required=True)
    rule = ChoiceRule(condition, target, entry.template("Output", INPUT), entry.assignments(INPUT))
    entry.finish()
    return rule


def _is_distributed(own: Reader) -> bool:
    config = own.nested("ProcessorConfig")
    mode = config.get("Mode", str, "INLINE")
    if mode not in ("INLINE", "DISTRIBUTED"):
        config.problem(f"{config.owner}: 'Mode' is INLINE or DISTRIBUTED.", "Mode")
    if mode == "DISTRIBUTED":
        config.only("ExecutionType", "STANDARD", required=True)
    config.finish()
    return bool(mode == "DISTRIBUTED")


def _targets(state: State) -> list[str]:
    targets = [state.next] if state.next else []
    if isinstance(state, Choice):
        targets += [rule.next for rule in state.rules]
    if isinstance(state, Task | Map):
        targets += [catcher.next for catcher in state.catch]
    return targets


def _ends(state: State) -> bool:
    return isinstance(state, Succeed | Fail) or (state.next is None and not isinstance(state, Choice))
