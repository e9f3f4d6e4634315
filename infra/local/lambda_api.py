"""The part of the Lambda API that reaches our functions: Invoke, and looking them up."""

from __future__ import annotations

import base64
import json
import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from infra.local.lambda_function import Function
from infra.local.lambda_invocation import FunctionNotFoundError, TooManyRequestsError
from infra.local.lambda_pool import LambdaPool

PREFIX = "/2015-03-31/functions"
CONCURRENCY_PREFIX = "/2017-10-31/functions"
MAX_REQUEST = 6 * 1024 * 1024
MAX_EVENT_REQUEST = 1024 * 1024
# An asynchronous invocation that fails is tried twice more.
EVENT_RETRIES = (60.0, 120.0)


@dataclass
class Reply:
    """One HTTP reply."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """An error of the Lambda API, as its code, HTTP status and message."""

    def __init__(self, code: str, status: int, message: str, **more: str) -> None:
        super().__init__(message)
        self.code, self.status = code, status
        self.body = {"Type": "User", "message": message, **more}

    def reply(self) -> Reply:
        return Reply(self.status, json.dumps(self.body).encode(), {"x-amzn-ErrorType": self.code})


class LambdaApi:
    """Answers Lambda requests from the pool. `clock_speed` shortens the pauses between asynchronous retries."""

    def __init__(self, pool: LambdaPool, clock_speed: float = 1.0) -> None:
        self._pool = pool
        self._clock_speed = clock_speed
        self._closing = threading.Event()

    @staticmethod
    def handles(path: str) -> bool:
        return path.startswith((PREFIX, CONCURRENCY_PREFIX))

    def close(self) -> None:
        self._closing.set()

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One request; `headers` with lower-case names."""
        try:
            reply = self._route(method, path, headers, body)
        except ApiError as error:
            reply = error.reply()
        except FunctionNotFoundError as error:
            reply = ApiError("ResourceNotFoundException", 404, str(error)).reply()
        reply.headers.setdefault("x-amzn-RequestId", str(uuid.uuid4()))
        return reply

    def _route(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        name, _, verb = path.removeprefix(PREFIX).strip("/").partition("/")
        name = unquote(name)
        match method, verb:
            case "POST", "invocations":
                return self._invoke(name, headers, body)
            case "GET", "" if not name:
                return _json({"Functions": [describe(function) for function in self._pool.functions()]})
            case "GET", "":
                return _json({"Configuration": describe(self._pool.function(name)), "Code": {}, "Tags": {}})
            case "GET", "configuration":
                return _json(describe(self._pool.function(name)))
        raise ApiError(
            "InvalidParameterValueException", 400, f"The local stack does not offer {method} {path}; see template.yaml"
        )

    def _invoke(self, name: str, headers: Mapping[str, str], body: bytes) -> Reply:
        kind = headers.get("x-amz-invocation-type", "RequestResponse")
        limit = MAX_EVENT_REQUEST if kind == "Event" else MAX_REQUEST
        if len(body) > limit:
            message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
            raise ApiError("RequestTooLargeException", 413, message)
        try:
            json.loads(body or b"{}")
        except ValueError as error:
            message = f"Could not parse request body into json: {error}"
            raise ApiError("InvalidRequestContentException", 400, message) from None
        function = self._pool.function(name)
        if kind == "DryRun":
            return Reply(204)
        if kind == "Event":
            threading.Thread(target=self._invoke_later, args=(name, body), daemon=True).start()
            return Reply(202)
        try:
            result = self._pool.invoke(name, body, client_context=_client_context(headers))
        except TooManyRequestsError as error:
            reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
            raise ApiError("TooManyRequestsException", 429, str(error), Reason=reason) from None
        answer = {"X-Amz-Executed-Version": "$LATEST", "x-amzn-RequestId": result.request_id}
        if result.function_error:
            answer["X-Amz-Function-Error"] = result.function_error
        if headers.get("x-amz-log-type") == "Tail":
            answer["X-Amz-Log-Result"] = base64.b64encode(result.log).decode()
        assert function.name
        return Reply(200, result.payload, answer)

    def _invoke_later(self, name: str, body: bytes) -> None:
        for pause in (*EVENT_RETRIES, None):
            try:
                failed = self._pool.invoke(name, body).function_error is not None
            except FunctionNotFoundError:
                return
            except TooManyRequestsError:
                failed = True
            if not failed or pause is None or self._closing.wait(pause / self._clock_speed):
                return


def describe(function: Function) -> dict[str, Any]:
    """A function's configuration as GetFunctionConfiguration has it."""
    return {
        "FunctionName": function.name,
        "FunctionArn": function.arn,
        "Runtime": "python3.13",
        "Handler": function.handler,
        "Timeout": int(function.timeout),
        "MemorySize": function.memory,
        "Version": "$LATEST",
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
        "Environment": {"Variables": dict(function.environment)},
    }


def _client_context(headers: Mapping[str, str]) -> str | None:
    encoded = headers.get("x-amz-client-context")
    return base64.b64decode(encoded).decode() if encoded else None


def _json(body: dict[str, Any]) -> Reply:
    return Reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})
