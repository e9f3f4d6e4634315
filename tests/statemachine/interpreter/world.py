"""A Step Functions service with fakes around it, and short ways to run a definition on it."""

from __future__ import annotations

import io
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from infra.local.states import Clock, LambdaResult, StateMachineService

ROLE = "arn:aws:iam::123456789012:role/local"
INVOKE = "arn:aws:states:::lambda:invoke"
PATIENCE = 30.0

Definition = dict[str, Any]


class FunctionError(Exception):
    """Raised by a fake function: the error type and message its runtime would report."""

    def __init__(self, name: str, message: str = "boom") -> None:
        super().__init__(name, message)
        self.payload = {"errorType": name, "errorMessage": message}


class ServiceError(Exception):
    """Raised by a fake function: an error of the Lambda service, not of the function."""


class FakeClock(Clock):
    """Waits for nothing and notes how long it should have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: list[float] = []

    def pause(self, wake: threading.Event, seconds: float) -> bool:
        self.pauses.append(seconds)
        return wake.is_set()


class FakeS3:
    """Objects by (bucket, key)."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}
        self.refuse_writes = False

    def get_object(self, *, Bucket: str, Key: str) -> Mapping[str, Any]:
        if (Bucket, Key) not in self.objects:
            raise _client_error("NoSuchKey", "GetObject")
        return {"Body": io.BytesIO(self.objects[Bucket, Key])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        if self.refuse_writes:
            raise _client_error("AccessDenied", "PutObject")
        self.objects[Bucket, Key] = Body

    def json(self, bucket: str, key: str) -> Any:
        return json.loads(self.objects[bucket, key])


def _client_error(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "refused"}}, operation)


class World:
    """The service under test. `functions` are its Lambda functions: JSON in, JSON out."""

    def __init__(self, clock: Clock | None = None, **options: Any) -> None:
        self.functions: dict[str, Callable[[Any], Any]] = {"echo": lambda payload: payload}
        self.published: list[dict[str, Any]] = []
        self.timeouts: list[float] = []
        self.s3 = FakeS3()
        self.clock = clock or FakeClock()
        self._numbers = itertools.count(1)
        self.service = StateMachineService(
            invoke_lambda=self._invoke, s3=self.s3, publish=self._publish, clock=self.clock, **options
        )

    @property
    def pauses(self) -> list[float]:
        assert isinstance(self.clock, FakeClock)
        return self.clock.pauses

    def call(self, operation: str, **body: Any) -> dict[str, Any]:
        """The answer of an operation that must succeed."""
        status, answer = self.service.handle(f"AWSStepFunctions.{operation}", body)
        assert status == 200, answer
        return answer

    def refused(self, operation: str, **body: Any) -> tuple[str, str]:
        """Code and message of an operation that must fail."""
        status, answer = self.service.handle(f"AWSStepFunctions.{operation}", body)
        assert status >= 400, answer
        return answer["__type"], answer["message"]

    def create(self, definition: Definition, name: str | None = None) -> str:
        """Create a state machine; its ARN."""
        name = name or f"machine-{next(self._numbers)}"
        answer = self.call("CreateStateMachine", name=name, definition=json.dumps(definition), roleArn=ROLE)
        return str(answer["stateMachineArn"])

    def start(self, definition: Definition, data: Any = None) -> str:
        """Create a state machine and start an execution of it; the execution's ARN."""
        text = json.dumps({} if data is None else data, ensure_ascii=False)
        answer = self.call("StartExecution", stateMachineArn=self.create(definition), input=text)
        return str(answer["executionArn"])

    def wait(self, arn: str) -> dict[str, Any]:
        """DescribeExecution once the execution has ended."""
        ended = threading.Event()
        self.service.execution(arn).on_end(lambda _: ended.set())
        assert ended.wait(PATIENCE), f"{arn} is still running"
        return self.call("DescribeExecution", executionArn=arn)

    def run(self, definition: Definition, data: Any = None) -> dict[str, Any]:
        """Run a definition to its end."""
        return self.wait(self.start(definition, data))

    def output(self, definition: Definition, data: Any = None) -> Any:
        """The output of a run that must succeed."""
        answer = self.run(definition, data)
        assert answer["status"] == "SUCCEEDED", answer
        return json.loads(answer["output"])

    def error(self, definition: Definition, data: Any = None) -> tuple[str | None, str | None]:
        """Error and cause of a run that must fail."""
        answer = self.run(definition, data)
        assert answer["status"] == "FAILED", answer
        return answer.get("error"), answer.get("cause")

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition that nothing announces."""
        deadline, pause = time.monotonic() + PATIENCE, threading.Event()
        while not condition():
            assert time.monotonic() < deadline, "the condition never became true"
            pause.wait(0.002)

    def history(self, arn: str) -> list[dict[str, Any]]:
        """All events of an execution."""
        events: list[dict[str, Any]] = self.call("GetExecutionHistory", executionArn=arn)["events"]
        return events

    def kinds(self, arn: str) -> list[str]:
        """The types of an execution's events."""
        return [event["type"] for event in self.history(arn)]

    def map_run(self, arn: str) -> dict[str, Any]:
        """DescribeMapRun of an execution's only Map Run."""
        (run,) = self.call("ListMapRuns", executionArn=arn)["mapRuns"]
        return self.call("DescribeMapRun", mapRunArn=run["mapRunArn"])

    def _invoke(self, function: str, payload: bytes, timeout: float) -> LambdaResult:
        self.timeouts.append(timeout)
        try:
            answer = self.functions[function](json.loads(payload))
        except FunctionError as error:
            return LambdaResult(json.dumps(error.payload).encode(), function_error="Unhandled")
        except ServiceError as error:
            return LambdaResult(error_name=str(error.args[0]), cause="the service says no")
        return LambdaResult(json.dumps(answer).encode())

    def _publish(self, **request: Any) -> Mapping[str, Any]:
        if request.get("TopicArn") == "missing":
            raise _client_error("NotFound", "Publish")
        self.published.append(request)
        return {"MessageId": "m-1", "ResponseMetadata": {"RequestId": "r-1"}}


def machine(states: dict[str, Any], **members: Any) -> Definition:
    """A definition that starts at the first of `states`."""
    return {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **members}


def passing(**members: Any) -> Definition:
    """A machine of one Pass state."""
    return machine({"Only": {"Type": "Pass", **members, **({} if "Next" in members else {"End": True})}})


def task(function: str = "echo", **members: Any) -> dict[str, Any]:
    """A Task that invokes a function with its input and hands on the payload."""
    return {
        "Type": "Task",
        "Resource": INVOKE,
        "Arguments": {"FunctionName": function, "Payload": "{% $states.input %}"},
        "Output": "{% $states.result.Payload %}",
        **({} if "Next" in members else {"End": True}),
        **members,
    }


def distributed(states: dict[str, Any], **members: Any) -> dict[str, Any]:
    """A Distributed Map over s3://bucket/manifest.json that ends the execution unless told otherwise."""
    return {
        "Type": "Map",
        "Label": "chunks",
        "ItemReader": {
            "Resource": "arn:aws:states:::s3:getObject",
            "ReaderConfig": {"InputType": "JSON"},
            "Arguments": {"Bucket": "bucket", "Key": "manifest.json"},
        },
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": next(iter(states)),
            "States": states,
        },
        **({} if "Next" in members else {"End": True}),
        **members,
    }


def inline(states: dict[str, Any], **members: Any) -> dict[str, Any]:
    """An INLINE Map over the input that ends the execution unless told otherwise."""
    processor = {"StartAt": next(iter(states)), "States": states}
    ending = {} if "Next" in members else {"End": True}
    return {"Type": "Map", "ItemProcessor": processor, **ending, **members}


WRITER = {
    "Resource": "arn:aws:states:::s3:putObject",
    "Arguments": {"Bucket": "bucket", "Prefix": "runs/7/results/"},
}
