"""CloudFormation's intrinsic functions, as far as our templates use them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from infra.local.errors import LocalStackError

# `Ref: AWS::NoValue` takes the property away that it is the value of.
NO_VALUE = object()


class TemplateError(LocalStackError):
    """The template cannot be deployed on the local stack."""


class Intrinsics:
    """Evaluates a template's values.

    `reference(name)` gives what Ref gives for a resource, `attribute(name, path)` what Fn::GetAtt gives;
    `parameters` holds parameters and pseudo parameters.
    """

    def __init__(
        self,
        parameters: Mapping[str, Any],
        conditions: Mapping[str, Any],
        mappings: Mapping[str, Any],
        *,
        reference: Callable[[str], Any],
        attribute: Callable[[str, str], Any],
    ) -> None:
        self._parameters = parameters
        self._conditions = conditions
        self._mappings = mappings
        self._reference = reference
        self._attribute = attribute
        self._functions: dict[str, Callable[[Any], Any]] = {
            "Ref": self.ref,
            "Condition": self.condition,
            "Fn::GetAtt": self._get_att,
            "Fn::Sub": self._sub,
            "Fn::Join": self._join,
            "Fn::Split": self._split,
            "Fn::Select": self._select,
            "Fn::FindInMap": self._find_in_map,
            "Fn::If": self._if,
            "Fn::Equals": self._equals,
            "Fn::Not": lambda value: not self.evaluate(value[0]),
            "Fn::And": lambda value: all(self.evaluate(item) for item in value),
            "Fn::Or": lambda value: any(self.evaluate(item) for item in value),
        }

    def evaluate(self, value: Any) -> Any:
        """`value` with every function in it replaced by its result. Raises TemplateError on one we do not know."""
        if isinstance(value, dict):
            if len(value) == 1:
                name, argument = next(iter(value.items()))
                if name in self._functions and (name != "Condition" or isinstance(argument, str)):
                    return self._functions[name](argument)
                if name.startswith("Fn::"):
                    raise TemplateError(f"the local stack does not evaluate {name}")
            evaluated = {key: self.evaluate(item) for key, item in value.items()}
            return {key: item for key, item in evaluated.items() if item is not NO_VALUE}
        if isinstance(value, list):
            return [item for item in map(self.evaluate, value) if item is not NO_VALUE]
        return value

    def ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self._parameters:
            return self._parameters[name]
        if name.startswith("AWS::"):
            raise TemplateError(f"the local stack does not know the pseudo parameter {name}")
        return self._reference(name)

    def condition(self, name: str) -> bool:
        """Whether a condition of the template holds."""
        if name not in self._conditions:
            raise TemplateError(f"the template has no condition {name}")
        return bool(self.evaluate(self._conditions[name]))

    def _get_att(self, value: Any) -> Any:
        name, _, path = value.partition(".") if isinstance(value, str) else (value[0], "", value[1])
        return self._attribute(name, self.evaluate(path))

    def _sub(self, value: Any) -> str:
        text, local = (value, {}) if isinstance(value, str) else value
        own = {name: self.evaluate(item) for name, item in local.items()}

        def replace(found: re.Match[str]) -> str:
            name = found[1].strip()
            if name.startswith("!"):
                return f"${{{name[1:]}}}"
            if name in own:
                return str(own[name])
            return str(self._get_att(name) if "." in name else self.ref(name))

        return re.sub(r"\$\{([^}]+)\}", replace, text)

    def _join(self, value: Any) -> str:
        delimiter, items = value
        return str(delimiter).join(str(item) for item in self.evaluate(items))

    def _split(self, value: Any) -> list[str]:
        return str(self.evaluate(value[1])).split(value[0])

    def _select(self, value: Any) -> Any:
        return self.evaluate(value[1])[int(self.evaluate(value[0]))]

    def _find_in_map(self, value: Any) -> Any:
        name, first, second = (self.evaluate(item) for item in value)
        try:
            return self._mappings[name][first][second]
        except KeyError:
            raise TemplateError(f"the template has no mapping {name}.{first}.{second}") from None

    def _if(self, value: Any) -> Any:
        return self.evaluate(value[1] if self.condition(value[0]) else value[2])

    def _equals(self, value: Any) -> bool:
        first, second = (self.evaluate(item) for item in value)
        return bool(first == second)
