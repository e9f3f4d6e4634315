"""JSONata as Step Functions evaluates it: `{% … %}` strings, JSON null and undefined told apart, AWS's functions.

The library takes Python's None for undefined, so nulls go in and come out as its own null value. Expressions are
compiled once and may be evaluated by any number of threads, each with its own bindings.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jsonata.jexception import JException
from jsonata.jsonata import Jsonata

from .errors import EvaluationError
from .functions import FUNCTIONS
from .values import from_jsonata

Bindings = Mapping[str, Any]
Check = Callable[[Any], bool]


def is_expression(value: object) -> bool:
    """Whether a JSON value is a `{% … %}` string."""
    return isinstance(value, str) and value.startswith("{%") and value.endswith("%}")


class Expression:
    """One compiled `{% … %}` string."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._compiled = _compile(source)

    @property
    def ast(self) -> Any:
        """The library's syntax tree, for checks at create time."""
        return self._compiled.ast

    def evaluate(self, bindings: Bindings, field: str) -> Any:
        """The JSON value; EvaluationError for any failure, including an undefined result."""
        try:
            result = self._compiled.evaluate(None, bindings)
            if result is None:
                raise self._failed(field, "returned nothing (undefined).")
            return from_jsonata(result)
        except EvaluationError:
            raise
        except JException as error:
            message = f"{error.error}: {error}"
            raise self._failed(field, f"threw an error during evaluation. {message}") from error
        except RecursionError as error:
            raise self._failed(field, "threw an error during evaluation. Stack overflow error") from error
        except Exception as error:  # the library lets Python's own errors through: ZeroDivisionError, ValueError …
            raise self._failed(field, f"threw an error during evaluation. {error}") from error

    def _failed(self, field: str, what: str) -> EvaluationError:
        return EvaluationError(
            f"The JSONata expression '{self.source}' specified for the field '{field}' {what}", field
        )


@functools.lru_cache(maxsize=4096)
def _compile(source: str) -> Jsonata:
    compiled = Jsonata(source)
    compiled.set_validate_input(False)
    compiled.set_output_convert_nulls(False)
    for name, function in FUNCTIONS.items():
        compiled.register_lambda(name, function)
    return compiled


class Template(Protocol):
    """A JSON value of the definition that may hold expressions at any depth."""

    def evaluate(self, bindings: Bindings) -> Any:
        """The JSON value; EvaluationError names the place that failed."""


class Constant:
    """A template without expressions."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def evaluate(self, bindings: Bindings) -> Any:
        """The value itself."""
        return self.value


class Dynamic:
    """A template that is one expression, optionally of a required type."""

    def __init__(self, source: str, field: str, expected: str = "", check: Check | None = None) -> None:
        self.expression = Expression(source)
        self.field = field
        self._expected = expected
        self._check = check

    def evaluate(self, bindings: Bindings) -> Any:
        """The expression's value, checked."""
        value = self.expression.evaluate(bindings, self.field)
        if self._check and not self._check(value):
            shown = json.dumps(value)[:200]
            raise EvaluationError(
                f"The JSONata expression '{self.expression.source}' specified for the field '{self.field}' returned "
                f"an unexpected result type. Expected '{self._expected}', but was: {shown}",
                self.field,
            )
        return value


class DynamicObject:
    """An object with at least one expression in it."""

    def __init__(self, members: dict[str, Template]) -> None:
        self.members = members

    def evaluate(self, bindings: Bindings) -> dict[str, Any]:
        """The object with every member evaluated."""
        return {name: member.evaluate(bindings) for name, member in self.members.items()}


class DynamicArray:
    """An array with at least one expression in it."""

    def __init__(self, items: list[Template]) -> None:
        self.items = items

    def evaluate(self, bindings: Bindings) -> list[Any]:
        """The array with every item evaluated."""
        return [item.evaluate(bindings) for item in self.items]


def strip(value: str) -> str:
    """The expression inside the `{% … %}` marks."""
    return value[2:-2].strip()


def compile_template(value: Any, field: str, compile_expression: Callable[[str, str], Template] = Dynamic) -> Template:
    """Compile a JSON value; `compile_expression(source, field)` makes the template of each expression in it."""
    if is_expression(value):
        return compile_expression(strip(value), field)
    if isinstance(value, dict):
        members = {name: compile_template(item, f"{field}/{name}", compile_expression) for name, item in value.items()}
        if all(isinstance(member, Constant) for member in members.values()):
            return Constant(value)
        return DynamicObject(members)
    if isinstance(value, list):
        items = [compile_template(item, f"{field}[{i}]", compile_expression) for i, item in enumerate(value)]
        return Constant(value) if all(isinstance(item, Constant) for item in items) else DynamicArray(items)
    return Constant(value)
