"""One invocation of a Lambda function, from the call to its outcome."""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from infra.local.errors import LocalStackError
from infra.local.runtime_api import MAX_PAYLOAD

if TYPE_CHECKING:
    from infra.local.lambda_function import Function
    from infra.local.lambda_worker import Worker


class FunctionNotFoundError(LocalStackError):
    """There is no such function."""


class TooManyRequestsError(LocalStackError):
    """Rate Exceeded."""


@dataclass(frozen=True)
class InvocationResult:
    """What the Invoke API answers.

    `function_error` is None or "Unhandled"; then `payload` is the JSON error payload (errorType, errorMessage, …).
    `log` is the last 4 KB that the invocation wrote.
    """

    payload: bytes
    function_error: str | None
    request_id: str
    log: bytes


class Invocation:
    """Waits in its function's queue, runs on one worker, and is completed exactly once."""

    def __init__(
        self,
        function: Function,
        payload: bytes,
        client_context: str | None = None,
        on_completed: Callable[[], None] = lambda: None,
    ) -> None:
        self.function = function
        self.payload = payload or b"{}"
        self.client_context = client_context
        self.request_id = str(uuid.uuid4())
        self.began = 0.0
        self.worker: Worker | None = None
        self._on_completed = on_completed
        self._started = threading.Event()
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._claimed = False
        self._result: InvocationResult | None = None

    def begin(self, worker: Worker) -> None:
        """A worker has taken it: the function's timeout runs from here, as in AWS after the init phase."""
        self.began = time.monotonic()
        self.worker = worker
        self._started.set()

    def claim(self) -> bool:
        """True for the first who has an outcome: the answer, the timeout or the worker's end."""
        with self._lock:
            claimed, self._claimed = self._claimed, True
            return not claimed

    def complete(self, payload: bytes, function_error: str | None, log: bytes = b"") -> None:
        """Set the outcome. Only for whoever got True from `claim`."""
        self._result = InvocationResult(payload, function_error, self.request_id, log)
        self._on_completed()
        self._started.set()
        self._done.set()

    def wait(self, seconds: float = math.inf) -> InvocationResult:
        """The outcome; a worker that has not answered within the function's timeout is killed.

        Raises TimeoutError after `seconds`; the invocation then runs on without this caller, as in AWS.
        """
        patience = time.monotonic() + seconds
        if not self._wait(self._started, patience):
            self._leave()
        limit = self.began + self.function.timeout
        if not self._wait(self._done, min(limit, patience)):
            if patience < limit:
                self._leave()
            if self.worker is not None:
                self.worker.report(self, self.error("Sandbox.Timedout", self.timeout_message), status="timeout")
                self.worker.kill()
            self._done.wait()
        assert self._result is not None
        return self._result

    @property
    def timeout_message(self) -> str:
        return f"Task timed out after {self.function.timeout:.2f} seconds"

    @staticmethod
    def _wait(event: threading.Event, deadline: float) -> bool:
        left = deadline - time.monotonic()
        return event.wait(min(max(left, 0.0), threading.TIMEOUT_MAX))

    def _leave(self) -> NoReturn:
        threading.Thread(target=self.wait, name=f"abandoned {self.request_id}", daemon=True).start()
        raise TimeoutError

    def error(self, kind: str, message: str) -> tuple[bytes, str]:
        """The payload and the X-Amz-Function-Error of what Lambda itself reports."""
        body = {"errorType": kind, "errorMessage": f"RequestId: {self.request_id} Error: {message}"}
        return json.dumps(body).encode(), "Unhandled"

    def too_large(self) -> tuple[bytes, str]:
        message = f"Response payload size exceeded maximum allowed payload size ({MAX_PAYLOAD} bytes)."
        body = {"errorType": "Function.ResponseSizeTooLarge", "errorMessage": message}
        return json.dumps(body).encode(), "Unhandled"
