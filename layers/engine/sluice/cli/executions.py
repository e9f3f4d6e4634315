"""Runs through Step Functions: starting an execution and hearing how it ended."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sluice import errors
from sluice.errors import BadInputError, SluiceError
from sluice.settings import settings

LONGEST_NAME = 80


class Execution:
    """One execution of the state machine. Attributes after its end: status, output, error, cause."""

    def __init__(self, arn: str) -> None:
        self.arn = arn
        self.status = "RUNNING"
        self.output: Mapping[str, Any] = {}
        self.error = ""
        self.cause = ""

    @classmethod
    def start(cls, job: str, run_key: str, params: Mapping[str, Any]) -> Execution:
        """Start one for a run; its name tells job and key.

        Raises BadInputError where no state machine is named, SluiceError where AWS refuses.
        """
        arn = settings().state_machine_arn
        if not arn:
            raise BadInputError(
                "SLUICE_STATE_MACHINE_ARN is not set: set it to the state machine's ARN, or use --inline to work "
                "the run in this process"
            )
        event = {"job": job, "run_key": run_key, **({"params": params} if params else {})}
        with aws_errors():
            answer = client().start_execution(
                stateMachineArn=arn, name=execution_name(job, run_key), input=json.dumps(event)
            )
        return cls(answer["executionArn"])

    def wait(self, seconds: float) -> bool:
        """Wait so long where it still runs; tells whether it has ended."""
        if self.status == "RUNNING":
            time.sleep(seconds)
            with aws_errors():
                answer = client().describe_execution(executionArn=self.arn)
            self.status = answer["status"]
            self.output = json.loads(answer.get("output") or "{}")
            self.error, self.cause = answer.get("error", ""), answer.get("cause", "")
        return self.status != "RUNNING"

    def problem(self) -> SluiceError | None:
        """Why it did not succeed, as the engine's error where it has that name; None where it did."""
        if self.status == "SUCCEEDED":
            return None
        known = getattr(errors, self.error, SluiceError)
        kind = BadInputError if isinstance(known, type) and issubclass(known, BadInputError) else SluiceError
        return kind(reason_of(self.cause) or f"the execution ended as {self.status} {self.error}".strip())


def reason_of(cause: str) -> str:
    """The message of an error that a Lambda raised, or the cause as it is."""
    try:
        return str(json.loads(cause)["errorMessage"])
    except (ValueError, KeyError, TypeError):
        return cause


def execution_name(job: str, run_key: str) -> str:
    """Unique, and readable in the console: job, key and a suffix."""
    suffix = secrets.token_hex(4)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{job.partition('/')[2]}-{run_key}").strip("-")
    return f"{name[: LONGEST_NAME - len(suffix) - 1]}-{suffix}"


def client() -> Any:
    import boto3

    return boto3.client("stepfunctions")


@contextmanager
def aws_errors() -> Iterator[None]:
    """AWS's refusals in one line."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise SluiceError(f"AWS: {error}") from None
