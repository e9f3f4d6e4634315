"""What is told of a run that has ended, and what Step Functions' errors become."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

from sluice import ledger, manifest, publish
from sluice.errors import BadInputError, TransientError
from sluice.finish import LONGEST_PROBLEM, Problem, problem_of
from sluice.settings import settings
from tests.unit.test_report_html import report_of

RUN_ID = 1234


def run_of(report: str | None = None) -> ledger.Run:
    at = datetime(2025, 1, 31, 4, tzinfo=UTC)
    return ledger.Run(
        RUN_ID, "demo/demo", "2025-01-31", at, 2, {}, "", "failed", "run", None, at, at, "Code", "text", report
    )


class StubLedger:
    """Stands for the ledger: one run, whose report's address can be set."""

    report: str | None = None

    def __init__(self, transaction: object) -> None:
        pass

    def row(self, name: str, /, **values: object) -> None:
        assert name == "lock_run"

    def run(self, run_id: int) -> ledger.Run:
        return run_of(StubLedger.report)

    def execute(self, name: str, /, **values: Any) -> int:
        assert name == "set_report"
        StubLedger.report = values["report"]
        return 1


class StubContext:
    """Stands for a context: its transactions hold nothing."""

    @contextmanager
    def transaction(self, name: str) -> Iterator[None]:
        yield


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment of a function, with the ledger stubbed and no client kept from another test."""
    names = {
        "SLUICE_BUCKET": "reports",
        "SLUICE_EVENT_BUS": "runs",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
    }
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr(publish, "collect", lambda context, run: report_of())
    monkeypatch.setattr(publish, "Ledger", StubLedger)
    StubLedger.report = None
    forget()
    yield monkeypatch
    forget()


CACHES = (settings, publish.events, manifest.s3)


def forget() -> None:
    for cached in CACHES:
        cached.cache_clear()


@pytest.fixture
def aws(environment: pytest.MonkeyPatch) -> Iterator[None]:
    """moto with the bucket and the event bus."""
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="reports")
        boto3.client("events").create_event_bus(Name="runs")
        yield


@pytest.fixture
def received(aws: None) -> Iterator[Any]:
    """Gives the events that a queue behind the bus has received so far."""
    sqs, bus = boto3.client("sqs"), boto3.client("events")
    queue = sqs.create_queue(QueueName="heard")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bus.put_rule(Name="all", EventBusName="runs", EventPattern=json.dumps({"source": ["sluice"]}))
    bus.put_targets(Rule="all", EventBusName="runs", Targets=[{"Id": "1", "Arn": arn}])

    def heard() -> list[Mapping[str, Any]]:
        answer = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        return [json.loads(message["Body"]) for message in answer.get("Messages", [])]

    yield heard


def published() -> str:
    return publish.publish(StubContext(), run_of())  # type: ignore[arg-type]


def test_report_lies_in_the_bucket_with_moto(aws: None) -> None:
    assert published() == f"s3://reports/runs/{RUN_ID}/report.html"
    s3 = boto3.client("s3")
    page = s3.get_object(Bucket="reports", Key=f"runs/{RUN_ID}/report.html")
    assert page["ContentType"] == "text/html; charset=utf-8"
    assert page["Body"].read().startswith(b"<!DOCTYPE html>")
    account = s3.get_object(Bucket="reports", Key=f"runs/{RUN_ID}/report.json")
    assert json.load(account["Body"]) == report_of()


def test_one_event_is_sent_a_run_with_moto(received: Any) -> None:
    addresses = {published() for _ in range(3)}
    [event] = received()
    assert (event["source"], event["detail-type"]) == ("sluice", "Sluice Run Finished")
    assert event["detail"] == {
        "job": "demo/demo",
        "run_key": "2025-01-31",
        "run_id": RUN_ID,
        "state": "failed",
        "error_code": "ChunksQuarantined",
        "finished": "2025-01-31T05:00:00.000Z",
        "totals": report_of()["totals"],
        "report": addresses.pop(),
    }
    assert not addresses


def test_the_event_holds_no_free_text_with_moto(received: Any) -> None:
    published()
    [event] = received()
    assert report_of()["run"]["error"] not in json.dumps(event)


def test_no_event_is_sent_without_a_bus_with_moto(environment: pytest.MonkeyPatch, received: Any) -> None:
    environment.setenv("SLUICE_EVENT_BUS", "")
    published()
    assert received() == []


def emitted(capsys: pytest.CaptureFixture[str]) -> Mapping[str, Any]:
    [line] = capsys.readouterr().out.splitlines()
    found: Mapping[str, Any] = json.loads(line)
    return found


def test_metrics_have_the_job_as_their_only_dimension(capsys: pytest.CaptureFixture[str]) -> None:
    publish.emit_metrics(report_of())
    found = emitted(capsys)
    [directive] = found["_aws"]["CloudWatchMetrics"]
    assert (directive["Namespace"], directive["Dimensions"]) == ("Sluice", [["job"]])
    values = {metric["Name"]: found[metric["Name"]] for metric in directive["Metrics"]}
    assert values == {
        "RowsUpdated": [1_200_000.0],
        "RowsLate": [12.0],
        "ChunksDone": [100.0],
        "ChunksQuarantined": [1.0],
        "ChecksFailed": [1.0],
        "RunSeconds": [3600.0],
        "RowsPerSecond": [12_000.0],
        "RunFailed": [1.0],
    }


@pytest.mark.parametrize(
    ("state", "metric"),
    [
        ("succeeded", "RunSucceeded"),
        ("succeeded_with_drift", "RunSucceeded"),
        ("failed", "RunFailed"),
        ("cancelled", "RunFailed"),
    ],
)
def test_a_run_counts_as_succeeded_or_failed(state: str, metric: str, capsys: pytest.CaptureFixture[str]) -> None:
    publish.emit_metrics(report_of(state))
    assert {name for name in emitted(capsys) if name.startswith("Run") and name != "RunSeconds"} == {metric}


def test_one_run_s_metrics_are_not_in_the_next_one_s(capsys: pytest.CaptureFixture[str]) -> None:
    publish.emit_metrics(report_of("failed"))
    emitted(capsys)
    publish.emit_metrics(report_of("succeeded"))
    assert "RunFailed" not in emitted(capsys)


def test_a_missing_bucket_is_refused_with_moto(environment: pytest.MonkeyPatch) -> None:
    with mock_aws(), pytest.raises(BadInputError, match="NoSuchBucket"):
        published()


def test_without_a_bucket_nothing_is_told(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("SLUICE_BUCKET", "")
    with pytest.raises(BadInputError, match="SLUICE_BUCKET"):
        published()


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "SlowDown", "Message": "905-61-0002"}}, "PutObject"),
        EndpointConnectionError(endpoint_url="http://s3"),
    ],
)
def test_a_failing_service_is_tried_again(environment: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: object) -> None:
        raise error

    environment.setattr(manifest, "put", fail)
    with pytest.raises(TransientError) as raised:
        published()
    assert "905" not in str(raised.value)
    assert StubLedger.report is None


def test_a_refused_event_is_tried_again(environment: pytest.MonkeyPatch) -> None:
    class Refusing:
        def put_events(self, **arguments: object) -> Mapping[str, Any]:
            return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "ThrottlingException"}]}

    environment.setattr(publish, "events", Refusing)
    with pytest.raises(TransientError, match="ThrottlingException"):
        publish.send_event(report_of(), "s3://")


LAMBDA_CAUSE = json.dumps(
    {"errorMessage": "deadlock\n detected", "errorType": "TransientError", "stackTrace": ["…"], "requestId": "1"}
)


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (None, None),
        ({}, None),
        ({"Error": "TransientError", "Cause": LAMBDA_CAUSE}, Problem("TransientError", "deadlock detected")),
        ({"Error": "States.Timeout", "Cause": "it took too long"}, Problem("States.Timeout", "it took too long")),
        ({"Error": "States.Timeout"}, Problem("States.Timeout", "no cause was given")),
        ({"Error": "X", "Cause": None}, Problem("X", "no cause was given")),
        ({"Error": "X", "Cause": '{"other": 1}'}, Problem("X", '{"other": 1}')),
        ({"Error": "X", "Cause": '"a text"'}, Problem("X", '"a text"')),
        ({"Cause": "lost"}, Problem("UnknownError", "lost")),
    ],
)
def test_step_functions_errors_become_problems(error: Mapping[str, object] | None, problem: Problem | None) -> None:
    assert problem_of(error) == problem


def test_a_problem_is_kept_short() -> None:
    problem = problem_of({"Error": "X", "Cause": json.dumps({"errorMessage": "x" * 5000})})
    assert problem is not None
    assert len(problem.text) == LONGEST_PROBLEM == 500
