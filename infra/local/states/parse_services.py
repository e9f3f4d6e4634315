"""Reads which services a definition calls, and refuses the arguments and modes that are not supported."""

from __future__ import annotations

import re
from typing import Any

from .definition import ItemReader
from .jsonata import Constant, Template, is_expression
from .reader import INPUT, NOT_HERE, Reader

_ARN = r"arn:aws[a-z-]*:states:[a-z0-9-]*:[0-9]*:"
_INTEGRATION = re.compile(_ARN + r"(lambda:invoke|sns:publish|states:startExecution\.sync:2)")
# Arguments by integration: the required ones first.
_ARGUMENTS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "lambda:invoke": (frozenset({"FunctionName"}), frozenset({"Payload", "InvocationType"})),
    "sns:publish": (
        frozenset({"Message"}),
        frozenset({"TopicArn", "Subject", "MessageAttributes", "MessageStructure"}),
    ),
    "states:startExecution.sync:2": (frozenset({"StateMachineArn"}), frozenset({"Input", "Name"})),
    "s3:getObject": (frozenset({"Bucket", "Key"}), frozenset()),
    "s3:putObject": (frozenset({"Bucket"}), frozenset({"Prefix"})),
}


def read_integration(reader: Reader) -> str:
    """The integration that a Task's Resource names; checks the names of its Arguments too."""
    resource = reader.get("Resource", str, "", required=True)
    match = _INTEGRATION.fullmatch(resource)
    if match:
        _check_arguments(reader, match.group(1), reader.source.get("Arguments", {}))
        if isinstance(reader.source.get("Arguments"), dict):
            _check_invocation(reader, reader.source["Arguments"])
        return match.group(1)
    if resource:
        supported = "lambda:invoke, sns:publish, states:startExecution.sync:2"
        reader.problem(f"{reader.owner}: Resource '{resource}' is not one of {supported}.", "Resource", NOT_HERE)
    return ""


def read_item_reader(reader: Reader) -> ItemReader | None:
    """The member ItemReader of a Map."""
    if not reader.has("ItemReader"):
        return None
    own = reader.nested("ItemReader")
    arguments = _s3_arguments(own, "s3:getObject") or Constant({})
    config = own.nested("ReaderConfig", required=True)
    config.only("InputType", "JSON", required=True)
    max_items = config.number("MaxItems", 1, 100_000_000)
    config.finish()
    own.finish()
    return ItemReader(arguments, max_items)


def read_result_writer(reader: Reader) -> Template | None:
    """The Arguments of the member ResultWriter of a Map."""
    if not reader.has("ResultWriter"):
        return None
    own = reader.nested("ResultWriter")
    own.only("WriterConfig", {"OutputType": "JSON", "Transformation": "NONE"})
    arguments = _s3_arguments(own, "s3:putObject")
    own.finish()
    return arguments


def _s3_arguments(own: Reader, integration: str) -> Template | None:
    resource = own.get("Resource", str, "", required=True)
    if resource and not re.fullmatch(_ARN + re.escape(integration), resource):
        own.problem(f"{own.owner}: Resource '{resource}' is not {integration}.", "Resource", NOT_HERE)
    _check_arguments(own, integration, own.source.get("Arguments", {}))
    return own.template("Arguments", INPUT)


def _check_arguments(reader: Reader, integration: str, arguments: Any) -> None:
    if is_expression(arguments):
        return
    if not isinstance(arguments, dict):
        reader.problem(f"{reader.owner}: field 'Arguments' must be an object.", "Arguments")
        return
    required, optional = _ARGUMENTS[integration]
    for name in sorted(arguments.keys() - required - optional):
        text = f"{reader.owner}: argument '{name}' of {integration} is not supported by the local interpreter."
        reader.problem(text, f"Arguments/{name}", NOT_HERE)
    for name in sorted(required - arguments.keys()):
        reader.problem(f"{reader.owner}: argument '{name}' of {integration} is missing.", "Arguments")


def _check_invocation(reader: Reader, arguments: dict[str, Any]) -> None:
    kind = arguments.get("InvocationType", "RequestResponse")
    if kind != "RequestResponse":
        text = f"{reader.owner}: InvocationType '{kind}' is not supported by the local interpreter."
        reader.problem(text, "Arguments/InvocationType", NOT_HERE)
