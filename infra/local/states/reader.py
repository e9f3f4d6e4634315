"""Reads the members of one JSON object of a definition and collects every problem it meets by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jsonata.jexception import JException

from . import expressions
from .jsonata import Constant, Dynamic, Template, compile_template, is_expression, strip

SCHEMA = "SCHEMA_VALIDATION_FAILED"
NOT_HERE = "NOT_SUPPORTED_LOCALLY"
MAX_SECONDS = 99_999_999
INPUT = frozenset({"input", "context"})
RESULT = INPUT | {"result"}
ERROR_OUTPUT = INPUT | {"errorOutput"}

# Fields of AWS that the interpreter does not have, so that a message can say more than "not known".
JSONPATH_FIELDS = frozenset({
    "CausePath", "ErrorPath", "HeartbeatSecondsPath", "InputPath", "ItemsPath", "Iterator", "MaxConcurrencyPath",
    "OutputPath", "Parameters", "Result", "ResultPath", "ResultSelector", "SecondsPath", "TimeoutSecondsPath",
    "TimestampPath", "ToleratedFailureCountPath", "ToleratedFailurePercentagePath", "Variable",
})  # fmt: skip
AWS_FIELDS = frozenset({
    "Branches", "CSVDelimiter", "CSVHeaderLocation", "CSVHeaders", "Credentials", "HeartbeatSeconds", "ItemBatcher",
    "ItemsPointer", "ManifestType", "Transformation",
})  # fmt: skip
_TYPE_NAMES = {dict: "object", list: "array", str: "string", bool: "boolean"}


@dataclass(frozen=True)
class Problem:
    """One finding about a definition, as ValidateStateMachineDefinition reports it."""

    code: str
    message: str
    location: str
    severity: str = "ERROR"

    def __str__(self) -> str:
        return f"{self.code}: {self.message} at {self.location or '/'}"


@dataclass
class Level:
    """The variables of one scope: the machine itself or the processor of one Map."""

    assigned: set[str] = field(default_factory=set)
    used: list[tuple[str, str]] = field(default_factory=list)
    inner: list[tuple[Level, bool]] = field(default_factory=list)


class Reader:
    """The members of one object.

    `owner` names the object in messages, for example `State 'Plan round'`. Every accessor notes the member as
    known; `finish` reports the rest. After a problem an accessor returns a harmless value, so that one pass finds
    everything.
    """

    def __init__(
        self, source: Any, location: str, owner: str, *, problems: list[Problem], level: Level, prefix: str = ""
    ) -> None:
        self.source: dict[str, Any] = source if isinstance(source, dict) else {}
        self.location = location
        self.owner = owner
        self.problems = problems
        self.level = level
        self._prefix = prefix
        self._known = {"Comment"}
        if not isinstance(source, dict):
            self.problem(f"{owner}: expected an object.")
        elif not isinstance(self.source.get("Comment", ""), str):
            self.problem(f"{owner}: field 'Comment' must be a string.", "Comment")

    def problem(self, message: str, name: str = "", code: str = SCHEMA) -> None:
        """Note a problem of the object, or of its member `name`."""
        self.problems.append(Problem(code, message, f"{self.location}/{name}" if name else self.location))

    def has(self, name: str) -> bool:
        """Whether the member is there."""
        return name in self.source

    def get(self, name: str, expected: type | tuple[type, ...], default: Any = None, required: bool = False) -> Any:
        """The member, checked for its JSON type."""
        self._known.add(name)
        if name not in self.source:
            if required:
                self.problem(f"{self.owner}: field '{name}' is missing.", name)
            return default
        value = self.source[name]
        kinds = expected if isinstance(expected, tuple) else (expected,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            wanted = " or ".join(_TYPE_NAMES.get(kind, "number") for kind in kinds)
            self.problem(f"{self.owner}: field '{name}' must be of type {wanted}.", name)
            return default
        return value

    def nested(self, name: str, *, required: bool = False, level: Level | None = None) -> Reader:
        """A reader of an object member; of an empty object where it is missing."""
        return Reader(
            self.get(name, dict, {}, required=required),
            f"{self.location}/{name}",
            f"{self.owner}, {name}",
            problems=self.problems,
            level=level or self.level,
            prefix=f"{self._prefix}{name}/",
        )

    def entries(self, name: str, noun: str, *, required: bool = False) -> list[Reader]:
        """Readers of the objects in an array member; `noun` names one in messages."""
        sources = self.get(name, list, [], required=required)
        if required and not sources:
            self.problem(f"{self.owner}: field '{name}' must not be empty.", name)
        return [
            Reader(
                source,
                f"{self.location}/{name}[{index}]",
                f"{self.owner}, {noun} {index}",
                problems=self.problems,
                level=self.level,
                prefix=f"{self._prefix}{name}[{index}]/",
            )
            for index, source in enumerate(sources)
        ]

    def only(self, name: str, value: object, required: bool = False) -> None:
        """A member with a single supported value."""
        self._known.add(name)
        found = self.source.get(name, None if required else value)
        if found != value:
            self.problem(
                f"{self.owner}: field '{name}' supports only {value!r} in the local interpreter, not {found!r}.",
                name,
                NOT_HERE,
            )

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A constant whole number within bounds."""
        value = self.get(name, int, default)
        if not low <= value <= high:
            self.problem(f"{self.owner}: field '{name}' must be from {low} to {high}, not {value}.", name)
            return default
        return int(value)

    def template(self, name: str, allowed: frozenset[str], default: Template | None = None) -> Template | None:
        """Any JSON value with expressions; `allowed` are the members of $states it may read."""
        self._known.add(name)
        if name not in self.source:
            return default
        return compile_template(self.source[name], self._prefix + name, self._compiler(name, allowed))

    def assignments(self, allowed: frozenset[str]) -> dict[str, Template]:
        """The member Assign, one template a variable."""
        source = self.get("Assign", dict, {})
        compiler = self._compiler("Assign", allowed)
        for name in source:
            if name == "states" or not name.isidentifier() or len(name) > 80:
                self.problem(f"{self.owner}: '{name}' is not a legal variable name.", f"Assign/{name}")
        self.level.assigned.update(source)
        return {n: compile_template(value, f"{self._prefix}Assign/{n}", compiler) for n, value in source.items()}

    def number(self, name: str, low: float, high: float, whole: bool = True) -> Template | None:
        """A number within bounds, or an expression that must return one."""

        def fits(value: Any) -> bool:
            kinds = int if whole else (int, float)
            return isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high

        wanted = f"{'integer' if whole else 'number'} from {low:g} to {high:.12g}"
        return self._checked(name, fits, wanted)

    def string(self, name: str) -> Template | None:
        """A string, or an expression that must return one."""
        return self._checked(name, lambda value: isinstance(value, str), "string")

    def boolean(self, name: str) -> Template | None:
        """An expression that must return true or false."""
        return self._checked(name, lambda value: isinstance(value, bool), "boolean")

    def array(self, name: str) -> Template | None:
        """An array, or an expression that must return one."""
        if isinstance(self.source.get(name), list):
            return self.template(name, INPUT)
        return self._checked(name, lambda value: isinstance(value, list), "array")

    def _checked(self, name: str, fits: Callable[[Any], bool], wanted: str) -> Template | None:
        self._known.add(name)
        if name not in self.source:
            return None
        value = self.source[name]
        if is_expression(value):
            template = self._compiler(name, INPUT)(strip(value), self._prefix + name)
            return (
                Dynamic(strip(value), self._prefix + name, wanted, fits) if isinstance(template, Dynamic) else template
            )
        if not fits(value):
            self.problem(f"{self.owner}: field '{name}' must be of type {wanted}, not {value!r}.", name)
        return Constant(value)

    def _compiler(self, name: str, allowed: frozenset[str]) -> Callable[[str, str], Template]:
        def compile_expression(source: str, where: str) -> Template:
            at = name + where[len(self._prefix) + len(name) :]
            try:
                compiled = Dynamic(source, where)
            except JException as error:
                text = f"{self.owner}: expression '{source}': {error}"
                self.problem(text, at, "INVALID_JSONATA_EXPRESSION")
                return Constant(None)
            ast = compiled.expression.ast
            for message in dict.fromkeys(expressions.unsupported(ast, allowed)):
                self.problem(f"{self.owner}: {message}", at, "UNSUPPORTED_JSONATA_EXPRESSION")
            self.level.used += [(variable, f"{self.location}/{at}") for variable in expressions.variables(ast)]
            return compiled

        return compile_expression

    def finish(self) -> None:
        """Report every member that no accessor asked for, and strings that only look like expressions."""
        for name in self.source:
            if name in self._known:
                self._half_open(self.source[name], name)
            elif name in JSONPATH_FIELDS:
                self.problem(f"{self.owner}: field '{name}' belongs to JSONPath; only JSONata is supported.", name)
            elif name in AWS_FIELDS:
                self.problem(f"{self.owner}: field '{name}' is not supported by the local interpreter.", name, NOT_HERE)
            else:
                self.problem(f"{self.owner}: field '{name}' is not known here.", name)

    def _half_open(self, value: Any, name: str) -> None:
        if isinstance(value, str) and name != "Comment" and value.startswith("{%") != value.endswith("%}"):
            self.problem(f"{self.owner}: field '{name}' opens or closes {{% … %}} only on one side.", name)
        elif isinstance(value, dict) and name not in ("ItemProcessor", "ItemReader", "ResultWriter", "States"):
            for key, item in value.items():
                self._half_open(item, f"{name}/{key}")
