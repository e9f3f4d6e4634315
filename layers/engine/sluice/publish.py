"""What the world hears of a run that has ended: its report in S3, its metrics, one event."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

from aws_lambda_powertools.metrics import MetricUnit

from sluice import manifest
from sluice.context import Context
from sluice.errors import BadInputError, TransientError
from sluice.ledger import Ledger, Run
from sluice.observability import metrics
from sluice.report.collect import collect
from sluice.report.html import render
from sluice.settings import settings

SUCCESSES = ("succeeded", "succeeded_with_drift")
REFUSALS = ("AccessDenied", "AccessDeniedException", "NoSuchBucket", "ResourceNotFoundException")


class EventBus(Protocol):
    """What is used of boto3's client for EventBridge."""

    def put_events(self, *, Entries: list[dict[str, str]]) -> Mapping[str, Any]: ...


@lru_cache(maxsize=1)
def events() -> EventBus:
    import boto3
    from botocore.config import Config

    # The event is put inside a transaction, which the database ends after 30 s without a statement.
    patience = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "max_attempts": 3})
    client: EventBus = boto3.client("events", config=patience)
    return client


def publish(context: Context, run: Run) -> str:
    """Write the report of a run that has ended and tell of it; gives the `s3://` address of the page.

    The ledger keeps the address last. Called again after a crash it does everything anew, over the same objects;
    called again after that, or beside another call, it does nothing. An event is sent twice where the crash lies
    between it and the ledger's commit: `run_id` and `finished` tell a reader so.

    Raises TransientError where AWS did not answer, BadInputError where it refused or no bucket is set, ChunkBusyError
    where another call is at it.
    """
    if not settings().bucket:
        raise BadInputError("no bucket is set for the report: SLUICE_BUCKET names it")
    report = collect(context, run)
    uri = write_report(run, report)
    with context.transaction(f"sluice:{run.run_id}:publish") as transaction:
        ledger = Ledger(transaction)
        ledger.row("lock_run", run_id=run.run_id)
        told = ledger.run(run.run_id).report
        if told:
            return told
        send_event(report, uri)
        emit_metrics(report)
        ledger.execute("set_report", run_id=run.run_id, report=uri)
    return uri


def write_report(run: Run, report: Mapping[str, Any]) -> str:
    """Put `report.json` and `report.html` under the run's prefix; gives the address of the page."""
    prefix = f"runs/{run.run_id}/report"
    bucket = settings().bucket
    with aws_errors("the report"):
        manifest.put(bucket, f"{prefix}.json", json.dumps(report, indent=1), "application/json")
        manifest.put(bucket, f"{prefix}.html", render(report), "text/html; charset=utf-8")
    return f"s3://{bucket}/{prefix}.html"


def emit_metrics(report: Mapping[str, Any]) -> None:
    """Print the run's metrics in CloudWatch's embedded format, by job alone."""
    totals, run = report["totals"], report["run"]
    failed = sum(1 for finding in report["findings"] if finding["rows"] and finding["severity"] == "error")
    outcome = "RunSucceeded" if run["state"] in SUCCESSES else "RunFailed"
    # A second dimension would make other metrics, which alarms on the job would miss.
    metrics.service = ""
    metrics.add_dimension("job", run["job"])
    for name, unit, value in (
        ("RowsUpdated", MetricUnit.Count, totals["rows_updated"]),
        ("RowsLate", MetricUnit.Count, totals["rows_late"]),
        ("ChunksDone", MetricUnit.Count, totals["chunks_done"]),
        ("ChunksQuarantined", MetricUnit.Count, totals["chunks_quarantined"]),
        ("ChecksFailed", MetricUnit.Count, failed),
        ("RunSeconds", MetricUnit.Seconds, report["timing"]["seconds"]),
        ("RowsPerSecond", MetricUnit.CountPerSecond, totals["rows_per_second"]),
        (outcome, MetricUnit.Count, 1),
    ):
        metrics.add_metric(name, unit, value)
    metrics.flush_metrics()


def send_event(report: Mapping[str, Any], uri: str) -> None:
    """Put `Sluice Run Finished` on the event bus, if there is one: names, numbers and the report's address."""
    if not settings().event_bus:
        return
    run = report["run"]
    detail = {
        "job": run["job"],
        "run_key": run["run_key"],
        "run_id": run["run_id"],
        "state": run["state"],
        "error_code": run["error_code"] or "",
        "finished": report["timing"]["finished"],
        "totals": report["totals"],
        "report": uri,
    }
    entry = {
        "Source": "sluice",
        "DetailType": "Sluice Run Finished",
        "Detail": json.dumps(detail),
        "EventBusName": settings().event_bus,
    }
    with aws_errors("the event"):
        answer = events().put_events(Entries=[entry])
    if answer["FailedEntryCount"]:
        raise TransientError(f"the event was not taken: {answer['Entries'][0].get('ErrorCode')}")


@contextmanager
def aws_errors(what: str) -> Iterator[None]:
    """Turns the SDK's errors into the engine's."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        refused = BadInputError if code in REFUSALS else TransientError
        raise refused(f"{what} could not be written: {code}") from None
    except BotoCoreError as error:
        raise TransientError(f"{what} could not be written: {type(error).__name__}") from None
