"""Checks on the syntax tree of a JSONata expression that AWS makes when a state machine is created.

An expression has no context item there: the input arrives as `$states.input` and variables by name, so a bare name
at the top level is refused, and so are `$$` and `$eval`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonata.jsonata import Jsonata
from jsonata.parser import Parser

from .functions import FUNCTIONS

BUILT_IN = frozenset(Jsonata.static_frame.bindings) | frozenset(FUNCTIONS)

# Links of the tree that lead back up or to the parser itself.
_NOT_CHILDREN = frozenset({"_outer_instance", "ancestor", "slot", "seeking_parent", "environment", "token"})
_CONTEXT_KEEPING = ("lhs", "rhs", "expression", "condition", "then", "_else", "body", "procedure")
_CONTEXT_KEEPING_LISTS = ("expressions", "arguments")


def unsupported(ast: Any, allowed: frozenset[str]) -> Iterator[str]:
    """What is wrong with an expression whose place offers the members `allowed` of `$states`."""
    for name in _top_level_names(ast):
        yield f"Reference to '{name}' at the top level is not supported."
    for node in _walk(ast):
        if node.type == "variable" and node.value in ("$", "eval"):
            yield f"Reference to '${node.value}' is not supported."
        if node.type == "path" and _is_variable(node.steps[0], "states") and len(node.steps) > 1:
            member = node.steps[1].value
            if member not in allowed:
                yield f"'$states.{member}' is not available in this field."


def variables(ast: Any) -> set[str]:
    """The names of state machine variables that an expression reads."""
    used: set[str] = set()
    bound: set[str] = set()
    for node in _walk(ast):
        if node.type == "variable" and isinstance(node.value, str):
            used.add(node.value)
        if node.type == "bind":
            bound.add(str(node.lhs.value))
        if node.type == "lambda":
            bound.update(str(argument.value) for argument in node.arguments or ())
        bound.update(str(name) for name in (node.focus, node.index) if name)
    return used - bound - BUILT_IN - {"", "$", "states"}


def _is_variable(node: Any, name: str) -> bool:
    return bool(node.type == "variable" and node.value == name)


def _walk(root: Any) -> Iterator[Any]:
    seen: set[int] = set()
    pending: list[Any] = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, list | tuple):
            pending.extend(node)
        elif isinstance(node, Parser.Symbol) and id(node) not in seen:
            seen.add(id(node))
            yield node
            pending.extend(child for name, child in vars(node).items() if name not in _NOT_CHILDREN)


def _top_level_names(node: Any) -> Iterator[str]:
    if not isinstance(node, Parser.Symbol):
        return
    if node.type == "path":
        yield from _top_level_names(node.steps[0])
    elif node.type == "name" or node.type in ("wildcard", "descendant", "parent"):
        yield str(node.value)
    elif _is_variable(node, ""):
        yield "$"
    elif node.type != "transform":
        for name in _CONTEXT_KEEPING:
            yield from _top_level_names(getattr(node, name))
        for name in _CONTEXT_KEEPING_LISTS:
            for child in getattr(node, name) or ():
                yield from _top_level_names(child)
        for pair in node.lhs_object or ():
            for child in pair:
                yield from _top_level_names(child)
