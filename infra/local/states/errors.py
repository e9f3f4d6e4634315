"""What can go wrong, for the caller of the API and inside an execution."""

from __future__ import annotations

from typing import Any

ALL = "States.ALL"
DATA_LIMIT_EXCEEDED = "States.DataLimitExceeded"
EXCEED_TOLERATED_FAILURES = "States.ExceedToleratedFailureThreshold"
ITEM_READER_FAILED = "States.ItemReaderFailed"
NO_CHOICE_MATCHED = "States.NoChoiceMatched"
QUERY_EVALUATION_ERROR = "States.QueryEvaluationError"
RESULT_WRITER_FAILED = "States.ResultWriterFailed"
RUNTIME = "States.Runtime"
TASK_FAILED = "States.TaskFailed"
TIMEOUT = "States.Timeout"

# What a wildcard in ErrorEquals never matches: the service treats both as the end of the execution.
TERMINAL = frozenset({DATA_LIMIT_EXCEEDED, RUNTIME})


class ApiError(Exception):
    """A refused API call; `code` is the `__type` that SDKs turn into an exception class."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status

    def body(self) -> dict[str, Any]:
        """The answer's JSON body."""
        return {"__type": self.code, "message": self.message}


class StateError(Exception):
    """A state failed with an ASL error name, which Retry and Catch may match."""

    def __init__(self, error: str | None, cause: str | None = None) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause

    def output(self) -> dict[str, str]:
        """`$states.errorOutput`; the service writes empty texts where there is none, as with States.Timeout."""
        return {"Error": self.error or "", "Cause": self.cause or ""}

    def details(self) -> dict[str, str]:
        """The members of a history event; one that was not given is left out."""
        pairs = (("error", self.error), ("cause", self.cause))
        return {name: value for name, value in pairs if value is not None}


class EvaluationError(StateError):
    """A JSONata expression failed, returned nothing, or returned the wrong type.

    `field` is the place in the state, for example `Output/total` or `Choices[1]/Condition`.
    """

    def __init__(self, cause: str, field: str) -> None:
        super().__init__(QUERY_EVALUATION_ERROR, cause)
        self.field = field


class Stopped(Exception):
    """The work was cancelled from outside: StopExecution, a failed sibling, or the end of the service."""


class DeadlinePassed(Exception):
    """The execution ran longer than its own TimeoutSeconds."""
