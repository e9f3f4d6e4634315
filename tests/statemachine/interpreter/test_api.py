"""The API as real clients see it: boto3 and the aws command over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

from tests.statemachine.interpreter.world import (
    PATIENCE,
    ROLE,
    WRITER,
    FunctionError,
    World,
    distributed,
    inline,
    machine,
    passing,
    task,
)

CREDENTIALS = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:
        pass


@pytest.fixture
def endpoint(world: World) -> Iterator[str]:
    """The service on a loopback port, as a front door would offer it."""

    @Request.application
    def application(request: Request) -> Response:
        status, body = world.service.handle(request.headers["X-Amz-Target"], json.loads(request.data))
        return Response(json.dumps(body), status, content_type="application/x-amz-json-1.0")

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(endpoint: str) -> Iterator[Any]:
    """A stock boto3 client."""
    config = Config(retries={"total_max_attempts": 1})
    client = boto3.session.Session().client("stepfunctions", endpoint_url=endpoint, config=config, **CREDENTIALS)
    yield client
    client.close()


def create(client: Any, definition: dict[str, Any], name: str = "machine") -> str:
    answer = client.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE)
    assert isinstance(answer["creationDate"], datetime)
    return str(answer["stateMachineArn"])


def test_state_machines(client: Any) -> None:
    arn = create(client, passing(Output=1))
    assert create(client, passing(Output=1)) == arn
    with pytest.raises(client.exceptions.StateMachineAlreadyExists):
        create(client, passing(Output=2))
    described = client.describe_state_machine(stateMachineArn=arn)
    assert json.loads(described["definition"]) == passing(Output=1)
    assert (described["name"], described["type"], described["status"]) == ("machine", "STANDARD", "ACTIVE")
    updated = client.update_state_machine(stateMachineArn=arn, definition=json.dumps(passing(Output=2)))
    assert updated["revisionId"] != described["revisionId"]
    with pytest.raises(client.exceptions.InvalidDefinition):
        client.update_state_machine(stateMachineArn=arn, definition="{}")
    with pytest.raises(client.exceptions.MissingRequiredParameter):
        client.update_state_machine(stateMachineArn=arn)
    assert [m["name"] for m in client.list_state_machines()["stateMachines"]] == ["machine"]
    client.tag_resource(resourceArn=arn, tags=[{"key": "stack", "value": "local"}, {"key": "x", "value": "y"}])
    client.untag_resource(resourceArn=arn, tagKeys=["x"])
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "stack", "value": "local"}]
    client.delete_state_machine(stateMachineArn=arn)
    with pytest.raises(client.exceptions.StateMachineDoesNotExist):
        client.describe_state_machine(stateMachineArn=arn)
    with pytest.raises(client.exceptions.StateMachineTypeNotSupported):
        client.create_state_machine(name="e", definition="{}", roleArn=ROLE, type="EXPRESS")


def test_executions(client: Any, world: World) -> None:
    arn = create(client, passing(Output="{% $states.input.n %}"))
    started = client.start_execution(stateMachineArn=arn, name="one", input='{"n": 5}')
    world.wait(started["executionArn"])
    described = client.describe_execution(executionArn=started["executionArn"])
    assert (described["status"], described["output"], described["input"]) == ("SUCCEEDED", "5", '{"n": 5}')
    assert described["startDate"] == started["startDate"]
    assert described["startDate"] <= described["stopDate"] <= datetime.now(UTC)
    failed = client.start_execution(stateMachineArn=arn, name="two", input="{}")["executionArn"]
    assert world.wait(failed)["status"] == "FAILED"
    listed = client.list_executions(stateMachineArn=arn)["executions"]
    assert [execution["name"] for execution in listed] == ["two", "one"]
    only = client.list_executions(stateMachineArn=arn, statusFilter="FAILED")["executions"]
    assert [execution["executionArn"] for execution in only] == [failed]
    pages = client.get_paginator("list_executions").paginate(stateMachineArn=arn, PaginationConfig={"PageSize": 1})
    assert [page["executions"][0]["name"] for page in pages] == ["two", "one"]
    with pytest.raises(client.exceptions.ExecutionAlreadyExists):
        client.start_execution(stateMachineArn=arn, name="one", input='{"n": 5}')
    with pytest.raises(client.exceptions.InvalidExecutionInput):
        client.start_execution(stateMachineArn=arn, input="{")
    with pytest.raises(client.exceptions.ExecutionDoesNotExist):
        client.describe_execution(executionArn=started["executionArn"] + "x")
    with pytest.raises(client.exceptions.InvalidArn):
        client.describe_execution(executionArn="nonsense")


def test_stop(client: Any, world: World) -> None:
    hold, busy = threading.Event(), threading.Event()

    def work(payload: Any) -> Any:
        busy.set()
        assert hold.wait(PATIENCE)
        return payload

    world.functions["work"] = work
    arn = client.start_execution(stateMachineArn=create(client, machine({"Work": task("work")})))["executionArn"]
    assert busy.wait(PATIENCE)
    stopped = client.stop_execution(executionArn=arn, error="Operator", cause="enough")
    described = client.describe_execution(executionArn=arn)
    hold.set()
    assert described["stopDate"] == stopped["stopDate"]
    assert (described["status"], described["error"], described["cause"]) == ("ABORTED", "Operator", "enough")
    last = client.get_execution_history(executionArn=arn, reverseOrder=True, maxResults=1)["events"][0]
    assert last["executionAbortedEventDetails"] == {"error": "Operator", "cause": "enough"}


def test_history_pages_both_ways(client: Any, world: World) -> None:
    definition = machine({"Work": task(Assign={"kept": "{% $states.input %}"})})
    arn = client.start_execution(stateMachineArn=create(client, definition), input='{"n":1}')["executionArn"]
    world.wait(arn)
    whole = client.get_execution_history(executionArn=arn)["events"]
    assert [event["id"] for event in whole] == list(range(1, 8))
    assert all(isinstance(event["timestamp"], datetime) for event in whole)
    assert whole[0]["executionStartedEventDetails"]["roleArn"] == ROLE
    assert whole[1]["stateEnteredEventDetails"] == {
        "name": "Work",
        "input": '{"n":1}',
        "inputDetails": {"truncated": False},
    }
    assert whole[5]["stateExitedEventDetails"]["assignedVariables"] == {"kept": '{"n":1}'}
    pager = client.get_paginator("get_execution_history")
    pages = pager.paginate(executionArn=arn, reverseOrder=True, PaginationConfig={"PageSize": 3})
    assert [[event["id"] for event in page["events"]] for page in pages] == [[7, 6, 5], [4, 3, 2], [1]]
    bare = client.get_execution_history(executionArn=arn, includeExecutionData=False)["events"]
    assert bare[1]["stateEnteredEventDetails"] == {"name": "Work"}
    with pytest.raises(client.exceptions.InvalidToken):
        client.get_execution_history(executionArn=arn, nextToken="nonsense")


def test_every_event_parses(client: Any, world: World) -> None:
    world.s3.objects["bucket", "manifest.json"] = b"[1, 2]"
    calls = 0

    def work(payload: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise FunctionError("Busy")
        if calls == 2:
            raise TimeoutError
        return payload

    world.functions["work"] = work
    retry = [{"ErrorEquals": ["States.ALL"]}]
    pick = {"Type": "Choice", "Choices": [{"Condition": "{% true %}", "Next": "Pause"}], "Default": "Bad"}
    each = inline({"In": {"Type": "Pass", "End": True}}, Items=[1], Next="Chunks")
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Bad"}]
    states = {
        "Work": task("work", TimeoutSeconds=9, Retry=retry, Next="Pick"),
        "Pick": pick,
        "Pause": {"Type": "Wait", "Seconds": 5, "Next": "Each"},
        "Each": each,
        "Chunks": distributed({"Out": {"Type": "Pass", "End": True}}, ResultWriter=WRITER, Next="Wrong"),
        "Wrong": task(Output="{% $nothing %}", Catch=catch),
        "Bad": {"Type": "Fail", "Error": "Done", "Cause": "as planned"},
    }
    arn = client.start_execution(stateMachineArn=create(client, machine(states)))["executionArn"]
    assert world.wait(arn)["error"] == "Done"
    events = client.get_execution_history(executionArn=arn)["events"]
    kinds = [event["type"] for event in events]
    assert len(events) > 30
    assert {"TaskFailed", "TaskTimedOut", "EvaluationFailed", "MapRunSucceeded", "MapIterationSucceeded"} <= set(kinds)
    without = {"MapStateSucceeded", "MapRunSucceeded", "MapStateFailed"}
    for event in events:
        details = [name for name in event if name.endswith("EventDetails")]
        assert len(details) == (0 if event["type"] in without else 1), event
        assert details == [] or event[details[0]], event
    failed = next(event for event in events if event["type"] == "EvaluationFailed")["evaluationFailedEventDetails"]
    assert (failed["state"], failed["location"], failed["error"]) == ("Wrong", "Output", "States.QueryEvaluationError")


def test_map_runs(client: Any, world: World) -> None:
    world.s3.objects["bucket", "manifest.json"] = b"[1, 2, 3]"
    each = distributed(
        {"In": {"Type": "Pass", "End": True}},
        MaxConcurrency=2,
        ToleratedFailurePercentage=12.5,
        ToleratedFailureCount=1,
    )
    arn = client.start_execution(stateMachineArn=create(client, machine({"Each": each})))["executionArn"]
    world.wait(arn)
    (run,) = client.list_map_runs(executionArn=arn)["mapRuns"]
    assert run["executionArn"] == arn
    assert run["stateMachineArn"].endswith(":stateMachine:machine/chunks")
    described = client.describe_map_run(mapRunArn=run["mapRunArn"])
    assert described["status"] == "SUCCEEDED"
    assert (described["maxConcurrency"], described["toleratedFailureCount"]) == (2, 1)
    assert described["toleratedFailurePercentage"] == 12.5
    assert described["itemCounts"]["succeeded"] == described["executionCounts"]["total"] == 3
    assert isinstance(described["stopDate"], datetime)
    children = client.list_executions(mapRunArn=run["mapRunArn"], statusFilter="SUCCEEDED")["executions"]
    assert len(children) == 3
    assert client.describe_execution(executionArn=children[0]["executionArn"])["mapRunArn"] == run["mapRunArn"]
    with pytest.raises(client.exceptions.ResourceNotFound):
        client.describe_map_run(mapRunArn=run["mapRunArn"] + "x")
    with pytest.raises(ClientError, match="ValidationException"):
        client.list_executions()


def test_validation(client: Any) -> None:
    good = client.validate_state_machine_definition(definition=json.dumps(passing()))
    assert (good["result"], good["diagnostics"]) == ("OK", [])
    bad = client.validate_state_machine_definition(definition=json.dumps(passing(Next="Nowhere")))
    assert bad["result"] == "FAIL"
    assert bad["diagnostics"][0]["code"] == "MISSING_TRANSITION_TARGET"


def test_what_the_service_does_not_have(client: Any, world: World) -> None:
    with pytest.raises(ClientError, match=r"UnknownOperationException.*ListActivities"):
        client.list_activities()
    with pytest.raises(ClientError, match="Versions"):
        client.create_state_machine(name="v", definition=json.dumps(passing()), roleArn=ROLE, publish=True)
    assert world.refused("DescribeExecution")[0] == "ValidationException"
    assert world.refused("ListStateMachines", maxResults=1001)[0] == "ValidationException"


def test_the_stock_aws_command(endpoint: str, world: World) -> None:
    arn = world.create(passing(Output={"n": 1}), "from-the-shell")
    aws = Path(sys.executable).with_name("aws")
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_PAGER": "",
    }

    def run(*arguments: str) -> Any:
        command = [str(aws), "--endpoint-url", endpoint, "--output", "json", "stepfunctions", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    started = run("start-execution", "--state-machine-arn", arn, "--name", "shell", "--input", '{"a": 1}')
    world.wait(started["executionArn"])
    events = run("get-execution-history", "--execution-arn", started["executionArn"])["events"]
    assert [event["type"] for event in events][-1] == "ExecutionSucceeded"
