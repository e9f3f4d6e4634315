"""The three services a Task may call, with the events each call leaves in the history."""

from __future__ import annotations

import json
import logging
import math
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from .data import NOT_TRUNCATED, Data, encode, limited, to_bytes
from .definition import Task
from .errors import RUNTIME, TASK_FAILED, TIMEOUT, ApiError, DeadlinePassed, StateError
from .execution import SUCCEEDED, Execution
from .interpreter import Visit
from .ports import LambdaResult

if TYPE_CHECKING:
    from .environment import Environment

log = logging.getLogger(__name__)

MAX_TIMEOUT = 99_999_999.0
_NEEDED = {
    "lambda:invoke": "FunctionName",
    "sns:publish": "Message",
    "states:startExecution.sync:2": "StateMachineArn",
}


class Tasks:
    """Runs Task states."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._calls = {
            "lambda:invoke": self._invoke,
            "sns:publish": self._publish,
            "states:startExecution.sync:2": self._start_execution,
        }

    def run(self, visit: Visit, state: Task) -> Data:
        """One attempt of a Task; its result. StateError for every failure."""
        arguments = visit.evaluate(state.arguments)
        timeout = visit.seconds(state.timeout)
        needed = _NEEDED[state.integration]
        if not isinstance(arguments, dict) or not isinstance(arguments.get(needed), str | dict):
            raise StateError(RUNTIME, f"The Arguments of the state '{state.name}' lack the member '{needed}'.")
        text = limited(arguments, f"input of the state '{state.name}'").text
        service, _, action = state.integration.partition(":")
        call = {"resourceType": service, "resource": action}
        scheduled: dict[str, Any] = {**call, "region": self._environment.region, "parameters": text}
        if math.isfinite(timeout):
            scheduled["timeoutInSeconds"] = int(timeout)
        visit.branch.record("TaskScheduled", scheduled)
        visit.branch.record("TaskStarted", call)
        try:
            answer = self._calls[state.integration](visit, arguments, timeout, call)
            result = limited(answer, f"result of the state '{state.name}'")
        except TimeoutError as error:
            visit.branch.record("TaskTimedOut", {**call, "error": TIMEOUT})
            raise StateError(TIMEOUT) from error
        except StateError as error:
            visit.branch.record("TaskFailed", {**call, **error.details()})
            raise
        visit.branch.record("TaskSucceeded", {**call, "output": result.text, "outputDetails": NOT_TRUNCATED})
        return result

    def _invoke(self, visit: Visit, arguments: Mapping[str, Any], timeout: float, call: Mapping[str, str]) -> Any:
        scope = visit.branch.scope
        payload = to_bytes(encode(arguments.get("Payload", {})))
        remaining = scope.remaining()
        limit = min(timeout, remaining, MAX_TIMEOUT)
        try:
            result = self._environment.invoke_lambda(str(arguments["FunctionName"]), payload, limit)
        except TimeoutError:
            scope.check()
            if limit == remaining:
                raise DeadlinePassed from None
            raise
        except Exception as error:
            log.exception("Invoking %s broke", arguments.get("FunctionName"))
            raise StateError("Lambda.SdkClientException", repr(error)) from error
        scope.check()
        return _lambda_answer(result)

    def _publish(self, visit: Visit, arguments: Mapping[str, Any], timeout: float, call: Mapping[str, str]) -> Any:
        request = dict(arguments)
        if not isinstance(request.get("Message", ""), str):
            request["Message"] = encode(request["Message"])
        try:
            answer = dict(self._environment.publish(**request))
        except ClientError as error:
            details = error.response.get("Error", {})
            code = details.get("Code", "Unknown").removesuffix("Exception")
            raise StateError(f"SNS.{code}Exception", details.get("Message", str(error))) from error
        except (BotoCoreError, TypeError) as error:
            raise StateError("SNS.SdkClientException", str(error)) from error
        metadata = answer.pop("ResponseMetadata", {})
        return {**answer, **_sdk_metadata(str(metadata.get("RequestId", "")))}

    def _start_execution(
        self, visit: Visit, arguments: Mapping[str, Any], timeout: float, call: Mapping[str, str]
    ) -> Any:
        given = arguments.get("Input", {})
        text = given if isinstance(given, str) else encode(given)
        try:
            inner = self._environment.start_execution(str(arguments["StateMachineArn"]), arguments.get("Name"), text)
        except ApiError as error:
            raise StateError(f"StepFunctions.{error.code}Exception", error.message) from error
        ended = threading.Event()
        inner.on_end(lambda _: ended.set())
        finished = False
        try:
            submitted = {"ExecutionArn": inner.arn, "StartDate": int(inner.start * 1000)}
            output = {**call, "output": encode(submitted), "outputDetails": NOT_TRUNCATED}
            visit.branch.record("TaskSubmitted", output)
            finished = visit.branch.scope.wait_for(ended, timeout)
        finally:
            if not finished:
                inner.abort()
        if not finished:
            raise TimeoutError
        return _nested_answer(inner)


def _lambda_answer(result: LambdaResult) -> dict[str, Any]:
    """The result of lambda:invoke, or the error the function or the service reported."""
    text = result.payload.decode("utf-8", "replace")
    if result.error_name:
        raise StateError(result.error_name, result.cause if result.cause is not None else text)
    if result.function_error:
        raise StateError(_error_type(text), result.cause if result.cause is not None else text)
    try:
        payload = json.loads(text)
    except ValueError:
        payload = text
    metadata = _sdk_metadata(result.request_id)
    return {"ExecutedVersion": result.executed_version, "Payload": payload, **metadata, "StatusCode": 200}


def _error_type(text: str) -> str:
    try:
        return str(json.loads(text)["errorType"])
    except (ValueError, KeyError, TypeError):
        return "Lambda.Unknown"


def _sdk_metadata(request_id: str) -> dict[str, Any]:
    return {"SdkHttpMetadata": {"HttpStatusCode": 200}, "SdkResponseMetadata": {"RequestId": request_id}}


def _nested_answer(inner: Execution) -> dict[str, Any]:
    record = inner.record()
    if inner.status != SUCCEEDED:
        raise StateError(TASK_FAILED, encode(record))
    return {**record, "Input": json.loads(record["Input"]), "Output": json.loads(record["Output"])}
