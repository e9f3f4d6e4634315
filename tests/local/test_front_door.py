"""One endpoint for boto3 and for the stock `aws` command."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.local.front_door import FrontDoor, PortTakenError
from infra.local.processes import wait_until
from infra.local.stack import LocalStack, StackRunsError

ECHO = "sluice-EchoEventFunction"
ONE_AT_A_TIME = "sluice-OneAtATimeFunction"
TERMINAL = {"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"}


def invoke(stack: LocalStack, event: Any, **arguments: Any) -> tuple[Any, dict[str, Any]]:
    answer = stack.client("lambda").invoke(
        FunctionName=arguments.pop("FunctionName", ECHO), Payload=json.dumps(event).encode(), **arguments
    )
    return json.loads(answer["Payload"].read() or b"null"), answer


def test_invoke_returns_payload_version_and_log(stack: LocalStack) -> None:
    payload, answer = invoke(stack, {"a": 1}, LogType="Tail")
    assert answer["StatusCode"] == 200
    assert payload["echo"] == {"a": 1}
    assert "FunctionError" not in answer
    assert answer["ExecutedVersion"] == "$LATEST"
    log = base64.b64decode(answer["LogResult"]).decode()
    assert "START RequestId: " in log
    assert "REPORT RequestId: " in log


def test_invoke_without_payload_gives_an_empty_event(stack: LocalStack) -> None:
    answer = stack.client("lambda").invoke(FunctionName=ECHO)
    assert json.loads(answer["Payload"].read())["echo"] == {}


def test_function_error_is_flagged(stack: LocalStack) -> None:
    payload, answer = invoke(stack, {"mode": "raise"})
    assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
    assert payload["errorType"] == "BadInputError"


def test_invoke_as_event_comes_back_at_once_and_is_retried_twice(stack: LocalStack) -> None:
    _, answer = invoke(stack, {"mode": "raise", "message": "asynchronous"}, InvocationType="Event")
    assert answer["StatusCode"] == 202
    log = stack.pool.log_path(ECHO)
    assert wait_until(lambda: log.read_text().count("BadInputError: asynchronous") == 3, 30)


def test_dry_run_invokes_nothing(stack: LocalStack) -> None:
    before = stack.pool.log_path(ONE_AT_A_TIME).read_text()
    _, answer = invoke(stack, {}, FunctionName=ONE_AT_A_TIME, InvocationType="DryRun")
    assert answer["StatusCode"] == 204
    assert stack.pool.log_path(ONE_AT_A_TIME).read_text() == before


def refused(action: Callable[[], Any]) -> tuple[str, int]:
    with pytest.raises(ClientError) as error:
        action()
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def test_refusals_have_lambda_s_codes(stack: LocalStack) -> None:
    functions = stack.client("lambda")
    nowhere = refused(lambda: functions.invoke(FunctionName="nowhere"))
    assert nowhere == ("ResourceNotFoundException", 404)
    not_json = refused(lambda: functions.invoke(FunctionName=ECHO, Payload=b"{"))
    assert not_json == ("InvalidRequestContentException", 400)
    large = b'"' + b"x" * (6 * 1024 * 1024 - 1) + b'"'
    assert refused(lambda: functions.invoke(FunctionName=ECHO, Payload=large)) == ("RequestTooLargeException", 413)
    event = b'"' + b"x" * (1024 * 1024) + b'"'
    too_large = refused(lambda: functions.invoke(FunctionName=ECHO, Payload=event, InvocationType="Event"))
    assert too_large == ("RequestTooLargeException", 413)
    unknown = refused(lambda: functions.delete_function(FunctionName=ECHO))
    assert unknown == ("InvalidParameterValueException", 400)


def test_reserved_concurrency_answers_429(stack: LocalStack) -> None:
    from botocore.config import Config
    from botocore.session import Session

    impatient: Any = Session().create_client(
        "lambda", region_name="us-east-1", endpoint_url=stack.endpoint_url, aws_access_key_id="local",
        aws_secret_access_key="local", config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip
    log = stack.pool.log_path(ONE_AT_A_TIME)
    with ThreadPoolExecutor(1) as executor:
        begun = log.read_text().count("handling")
        event = {"mode": "sleep", "seconds": 1.5}
        busy = executor.submit(invoke, stack, event, FunctionName=ONE_AT_A_TIME)
        assert wait_until(lambda: log.read_text().count("handling") > begun, 20)
        assert refused(lambda: impatient.invoke(FunctionName=ONE_AT_A_TIME)) == ("TooManyRequestsException", 429)
        assert "FunctionError" not in busy.result()[1]
    impatient.close()


def test_functions_are_listed_and_described(stack: LocalStack) -> None:
    functions = stack.client("lambda")
    names = {function["FunctionName"] for function in functions.list_functions()["Functions"]}
    assert {ECHO, ONE_AT_A_TIME} <= names
    assert functions.get_function(FunctionName=ECHO)["Configuration"]["Handler"] == "app.lambda_handler"
    assert functions.get_function_configuration(FunctionName=ECHO)["MemorySize"] == 256


def test_state_machine_runs_on_manifest_functions_and_results(stack: LocalStack) -> None:
    s3, states = stack.client("s3"), stack.client("stepfunctions")
    manifest = [{"chunk": number, "rows": 1} for number in range(30)]
    s3.put_object(Bucket=stack.bucket, Key="manifest.json", Body=json.dumps(manifest))
    execution = states.start_execution(stateMachineArn=stack.state_machine_arn, input='{"key": "manifest.json"}')
    arn = execution["executionArn"]
    assert wait_until(lambda: states.describe_execution(executionArn=arn)["status"] in TERMINAL, 60)
    described = states.describe_execution(executionArn=arn)
    assert described["status"] == "SUCCEEDED", described
    result = json.loads(described["output"])["ResultWriterDetails"]
    assert result["Bucket"] == stack.bucket
    written = json.loads(s3.get_object(Bucket=result["Bucket"], Key=result["Key"])["Body"].read())
    succeeded = written["ResultFiles"]["SUCCEEDED"][0]["Key"]
    children = json.loads(s3.get_object(Bucket=stack.bucket, Key=succeeded)["Body"].read())
    assert sorted(json.loads(child["Output"])["chunk"] for child in children) == list(range(30))


def test_moto_answers_the_rest(stack: LocalStack) -> None:
    sqs = stack.client("sqs")
    queue = stack.deployment.references["Queue"]
    assert queue.startswith(stack.endpoint_url)
    sqs.send_message(QueueUrl=queue, MessageBody="hello")
    assert sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"] == "hello"
    stack.client("s3").put_object(Bucket=stack.bucket, Key="deep/größe.bin", Body=b"x" * 3_000_000)
    head = stack.client("s3").head_object(Bucket=stack.bucket, Key="deep/größe.bin")
    assert head["ContentLength"] == 3_000_000


def test_logs_reach_cloudwatch(stack: LocalStack) -> None:
    invoke(stack, {"mode": "plain", "note": "for cloudwatch"})
    logs = stack.client("logs")

    def arrived() -> bool:
        groups = [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]]
        if f"/aws/lambda/{ECHO}" not in groups:
            return False
        found = logs.filter_log_events(logGroupName=f"/aws/lambda/{ECHO}", filterPattern="cloudwatch")
        return bool(found["events"])

    assert wait_until(arrived, 20)


def test_stock_aws_command(stack: LocalStack, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {**stack.env(), "AWS_CONFIG_FILE": os.devnull, "HOME": str(tmp_path)}

    def aws(*arguments: str) -> Any:
        command = [str(Path(sys.executable).with_name("aws")), "--output", "json", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return json.loads(done.stdout) if done.stdout.startswith(("{", "[")) else done.stdout

    machines = aws("stepfunctions", "list-state-machines")["stateMachines"]
    assert [machine["stateMachineArn"] for machine in machines] == [stack.state_machine_arn]
    (tmp_path / "manifest.json").write_text('[{"chunk": 7}]')
    aws("s3", "cp", str(tmp_path / "manifest.json"), f"s3://{stack.bucket}/by-command.json")
    assert "by-command.json" in aws("s3", "ls", f"s3://{stack.bucket}/")
    started = aws(
        "stepfunctions", "start-execution", "--state-machine-arn", stack.state_machine_arn,
        "--input", '{"key": "by-command.json"}',
    )  # fmt: skip
    arn = started["executionArn"]
    states = stack.client("stepfunctions")
    assert wait_until(lambda: states.describe_execution(executionArn=arn)["status"] in TERMINAL, 60)
    assert aws("stepfunctions", "describe-execution", "--execution-arn", arn)["status"] == "SUCCEEDED"
    history = aws("stepfunctions", "get-execution-history", "--execution-arn", arn)["events"]
    assert history[0]["type"] == "ExecutionStarted"
    answer = tmp_path / "answer.json"
    invoked = aws(
        "lambda", "invoke", "--function-name", ECHO, "--payload", '{"by": "command"}', str(answer)
    )  # fmt: skip
    assert invoked["StatusCode"] == 200
    assert json.loads(answer.read_text())["echo"] == {"by": "command"}


def test_second_stack_in_one_process_is_refused(stack: LocalStack, tmp_path: Path) -> None:
    with pytest.raises(StackRunsError, match="runs in this process already"):
        LocalStack(data_dir=tmp_path).start()
    assert stack.client("lambda").list_functions()["Functions"]


def test_taken_port_is_refused(stack: LocalStack) -> None:
    port = int(stack.endpoint_url.rpartition(":")[2])
    with pytest.raises(PortTakenError, match=f"port {port} cannot be used"):
        FrontDoor(port)
