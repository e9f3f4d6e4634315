"""The state machine that is deployed, and what its error names stand for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FILE = ROOT / "statemachines" / "run_job.asl.json"
TEXT = FILE.read_text()
DEFINITION: dict[str, Any] = json.loads(TEXT)

# Names that AWS gives to errors, with where that is said.
ERROR_HANDLING = "https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html"
LAMBDA_SERVICE = "https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html"
AWS_NAMES = {
    "States.ALL": ERROR_HANDLING,
    "States.QueryEvaluationError": ERROR_HANDLING,
    "States.Timeout": ERROR_HANDLING,
    "Lambda.TooManyRequestsException": LAMBDA_SERVICE,
    "Lambda.ClientExecutionTimeoutException": LAMBDA_SERVICE,
    "Lambda.ServiceException": LAMBDA_SERVICE,
    "Lambda.AWSLambdaException": LAMBDA_SERVICE,
    "Lambda.SdkClientException": LAMBDA_SERVICE,
    # A function's own timeout on today's runtimes; older ones said Lambda.Unknown.
    "Sandbox.Timedout": ERROR_HANDLING,
    "Lambda.Unknown": LAMBDA_SERVICE,
    # A crash, out of memory among them: the payload's errorType, although the page above only knows Lambda.Unknown.
    "Runtime.ExitError": "https://github.com/awslabs/amazon-s3-find-and-forget/pull/283",
}


def all_states(states: dict[str, Any] = DEFINITION["States"]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every state by name, those inside Maps too."""
    for name, state in states.items():
        yield name, state
        if "ItemProcessor" in state:
            yield from all_states(state["ItemProcessor"]["States"])


STATES = dict(all_states())
TASKS = {name: state for name, state in STATES.items() if state["Type"] == "Task"}


def function_of(state: dict[str, Any]) -> str:
    """The function that a Task invokes, by the name of its substitution: `GetChunks`."""
    name: str = state["Arguments"]["FunctionName"]
    return name.removeprefix("${").removesuffix("FunctionArn}")


def rendered(**substitutions: str) -> str:
    """The definition's text with its substitutions in place, each by its own name where nothing else is given."""
    given = {"Partition": "aws", **substitutions}
    return re.sub(r"\$\{(\w+)\}", lambda match: given.get(match[1], match[1]), TEXT)
