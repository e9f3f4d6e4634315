"""What the interpreter needs from outside, as types: Lambda, S3, SNS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class LambdaResult:
    """One invocation's outcome.

    `payload` is the function's answer or, with `function_error`, its JSON error payload. The ASL error name is
    `error_name` where it is set and otherwise the payload's `errorType`: that of a raised exception, and in AWS also
    Runtime.ExitError where the process died and Sandbox.Timedout where it took too long (a payload without one is
    Lambda.Unknown). Set `error_name` for what the service itself refused: Lambda.TooManyRequestsException,
    Lambda.ServiceException. `cause` replaces the payload as the error's cause.
    """

    payload: bytes = b""
    function_error: str | None = None
    error_name: str | None = None
    cause: str | None = None
    request_id: str = ""
    executed_version: str = "$LATEST"


# (function ARN or name, payload, timeout in seconds) → result. It must come back within the timeout, raising
# TimeoutError when the function has not answered by then; the function itself may run on, as in AWS.
InvokeLambda = Callable[[str, bytes, float], LambdaResult]

# boto3's `sns.publish`, or anything with its keyword arguments and answer.
Publish = Callable[..., Mapping[str, Any]]


class S3(Protocol):
    """The part of a boto3 S3 client that ItemReader and ResultWriter use."""

    def get_object(self, *, Bucket: str, Key: str) -> Mapping[str, Any]:
        """`{"Body": readable}`; a missing object raises botocore's ClientError."""

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> Any:
        """Write one object."""
