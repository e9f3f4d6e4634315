"""A key value leaves the database by no way: not by errors that quote it, not by findings, plans or reports."""

from __future__ import annotations

import html
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest

from infra.local.processes import wait_until
from infra.local.stack import LocalStack
from sluice.databases.postgres import classify
from sluice.observability import RedactingFormatter
from tests.chaos.arena import arena, run_sql

pytestmark = pytest.mark.timeout(240)

HERE = Path(__file__).parent
SPELLINGS = (
    "987-65-4321", "987654321", "987 65 4321", "987.65.4321", "987/65/4321", " 987-65-4321 ", "987\u201165\u20114321",
    "O'987-65-4321\"<b>", "#987-65-4321",
)  # fmt: skip
# However it is escaped, the digits stay in their order.
CANARY = re.compile(r"987(?:\D|\\u\d{4}|%[0-9A-F]{2}|&#?\w+;){0,12}65(?:\D|\\u\d{4}|%[0-9A-F]{2}|&#?\w+;){0,12}4321")
JOBS = ("copies", "duplicate", "cast", "refused", "trap", "slow", "step", "uneven")
ROWS = 60
TRAPS = (
    "P0001", "23505", "45000", "55000", "40001", "55P03", "08006", "57014", "42501", "42601", "0A000", "58000", "HV000",
    "38000", "dynamic", "cast", "assert",
)  # fmt: skip


def test_the_pattern_finds_every_spelling() -> None:
    for text in SPELLINGS:
        for shape in (text, json.dumps(text), json.dumps(json.dumps(text)), html.escape(text), quote(text), repr(text)):
            assert CANARY.search(f'{{"key": {shape}}}'), shape
    assert not CANARY.search("987-65-4329 and 65 of 4321")


def test_the_log_masks_what_looks_like_a_number() -> None:
    record = logging.LogRecord("sluice", logging.INFO, __file__, 1, "caregiver 987-65-4321 refused", None, None)
    line = RedactingFormatter().format(record)
    assert not CANARY.search(line)
    assert "caregiver ***-**-**** refused" in line


@pytest.mark.parametrize("trap", TRAPS)
def test_no_error_of_a_function_quotes_it(database: str, trap: str) -> None:
    run_sql(database, (HERE / "canary" / "schema.sql").read_text())
    run_sql(database, 'INSERT INTO canary.visits ("ID", "SSN") VALUES (1, %s)', SPELLINGS[0])
    with pytest.raises(psycopg2.Error) as caught:
        run_sql(database, 'UPDATE canary.visits SET "Trap" = %s', trap)
    assert CANARY.search(str(caught.value)), "the database did not quote it"
    error = classify(caught.value)
    assert not CANARY.search(f"{error} {error.facts}")
    assert error.facts["sqlstate"] == caught.value.pgcode


def test_the_servers_own_words_are_kept(database: str) -> None:
    for statement, words in (("SELECT FROM nowhere", 'relation "nowhere" does not exist'), ("SELEC 1", "syntax error")):
        with pytest.raises(psycopg2.Error) as caught:
            run_sql(database, statement)
        assert words in str(classify(caught.value))


@dataclass
class Evidence:
    """What the runs left outside the target table, as texts by their place; and what the database itself knows."""

    ends: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    bounds: str = ""
    keys: str = ""
    server_log: str = ""
    attempts: list[tuple[Any, ...]] = field(default_factory=list)

    def places(self, start: str) -> dict[str, str]:
        return {place: text for place, text in self.texts.items() if place.startswith(start)}

    def leaks(self, start: str) -> list[str]:
        """Where the canary is, with its surroundings."""
        found = []
        for place, text in self.places(start).items():
            match = CANARY.search(text)
            if match:
                found.append(f"{place}: …{text[max(0, match.start() - 200) : match.end() + 60]}…")
        return found


@pytest.fixture(scope="module")
def evidence() -> Iterator[Evidence]:
    """Every failure provoked on one stack, and everything collected that can be read from outside."""
    with arena(HERE / "canary", clock_speed=500.0) as stack:
        fill(stack)
        queue = listen(stack)
        found = Evidence()
        runs = {job: work(stack, job, found) for job in JOBS}
        found.texts |= dict(objects(stack))
        found.texts |= dict(executions(stack))
        found.texts |= dict(logs(stack, runs))
        found.texts |= dict(events(stack, queue))
        found.texts |= dict(ledger(stack))
        found.texts |= dict(commands(stack, runs))
        found.bounds = str(run_sql(stack.dsn, "SELECT lo, hi FROM sluice.chunk"))
        found.keys = str(run_sql(stack.dsn, "SELECT keys FROM sluice.finding"))
        found.attempts = run_sql(
            stack.dsn,
            "SELECT DISTINCT split_part(job, '/', 2), code FROM sluice.attempt JOIN sluice.run USING (run_id)",
        )
        found.server_log = (stack.data_dir / "pg" / "server.log").read_text(errors="replace")
        yield found


def fill(stack: LocalStack) -> None:
    run_sql(stack.dsn, (HERE / "canary" / "schema.sql").read_text())
    # Visits 8 and 9 are one key group.
    run_sql(
        stack.dsn,
        """INSERT INTO canary.visits ("ID", "VisitDate", "SSN")
           SELECT n, date '2025-01-01' + n / 4, (%s::text[])[1 + (CASE n WHEN 9 THEN 8 ELSE n END) %% %s]
           FROM generate_series(1, %s) AS n""",
        list(SPELLINGS),
        len(SPELLINGS),
        ROWS,
    )


def listen(stack: LocalStack) -> str:
    """A queue that gets every event of the bus."""
    sqs, bus = stack.client("sqs"), stack.client("events")
    url = sqs.create_queue(QueueName="heard")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    bus.put_rule(Name="all", EventPattern=json.dumps({"source": ["sluice"]}))
    bus.put_targets(Rule="all", Targets=[{"Id": "queue", "Arn": arn}])
    return str(url)


def work(stack: LocalStack, job: str, found: Evidence) -> int | None:
    """One execution to its end; gives the run's number where one was opened."""
    states = stack.client("stepfunctions")
    text = json.dumps({"job": f"canary/{job}", "run_key": "one"})
    arn = states.start_execution(stateMachineArn=stack.state_machine_arn, input=text)["executionArn"]
    assert wait_until(lambda: states.describe_execution(executionArn=arn)["status"] != "RUNNING", 120), job
    ended = states.describe_execution(executionArn=arn)
    found.ends[job] = f"{ended['status']} {ended.get('error', '')}".strip()
    run_sql(stack.dsn, "DELETE FROM sluice.active_target")
    rows = run_sql(stack.dsn, "SELECT run_id FROM sluice.run WHERE job = %s", f"canary/{job}")
    return rows[0][0] if rows else None


def objects(stack: LocalStack) -> Iterator[tuple[str, str]]:
    s3 = stack.client("s3")
    for page in s3.get_paginator("list_object_versions").paginate(Bucket=stack.bucket):
        for each in page.get("Versions", []):
            got = s3.get_object(Bucket=stack.bucket, Key=each["Key"], VersionId=each["VersionId"])
            body = got["Body"].read().decode()
            yield f"s3 {each['Key']} {each['VersionId']}", f"{each['Key']} {got['Metadata']} {body}"


def executions(stack: LocalStack) -> Iterator[tuple[str, str]]:
    """Parents and children: input, output, error, cause and the whole history of each."""
    states = stack.client("stepfunctions")

    def told(arn: str) -> str:
        described = states.describe_execution(executionArn=arn)
        pages = states.get_paginator("get_execution_history").paginate(executionArn=arn, includeExecutionData=True)
        return json.dumps([described, [page["events"] for page in pages]], default=str)

    for parent in states.list_executions(stateMachineArn=stack.state_machine_arn)["executions"]:
        yield f"states {parent['executionArn']}", told(parent["executionArn"])
        for run in states.list_map_runs(executionArn=parent["executionArn"])["mapRuns"]:
            described = states.describe_map_run(mapRunArn=run["mapRunArn"])
            yield f"states {run['mapRunArn']}", json.dumps(described, default=str)
            children = states.get_paginator("list_executions").paginate(mapRunArn=run["mapRunArn"])
            for page in children:
                for child in page["executions"]:
                    yield f"states child {child['executionArn']}", told(child["executionArn"])


def logs(stack: LocalStack, runs: dict[str, int | None]) -> Iterator[tuple[str, str]]:
    """The functions' logs on disk and in CloudWatch, into which they come a moment later; EMF metrics among them."""
    for function in stack.pool.functions():
        yield f"log {function.name}", stack.pool.log_path(function.name).read_text()
    client = stack.client("logs")
    finished = sum(run is not None for run in runs.values())

    def metrics_arrived() -> bool:
        lines = client.filter_log_events(logGroupName="/aws/lambda/sluice-finish-run")["events"]
        return sum('"RunSeconds"' in line["message"] for line in lines) >= finished

    assert wait_until(metrics_arrived, 10)
    for group in client.describe_log_groups()["logGroups"]:
        pages = client.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
        lines = [event["message"] for page in pages for event in page["events"]]
        yield f"cloudwatch {group['logGroupName']}", "\n".join(lines)


def events(stack: LocalStack, queue: str) -> Iterator[tuple[str, str]]:
    sqs = stack.client("sqs")
    number = 0
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            number += 1
            yield f"event {number}", message["Body"]
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


def ledger(stack: LocalStack) -> Iterator[tuple[str, str]]:
    """Every row of every table and view of the ledger, but for the three columns that hold keys."""
    for (name,) in run_sql(
        stack.dsn,
        "SELECT relname FROM pg_class WHERE relnamespace = 'sluice'::regnamespace AND relkind IN ('r', 'v') ORDER BY 1",
    ):
        statement = f"SELECT to_jsonb(t) - ARRAY['lo', 'hi', 'keys'] FROM sluice.{name} AS t"
        yield f"ledger {name}", str(run_sql(stack.dsn, statement))


# One process for all of them: each would spend a second on its imports.
ASK = """
import json, sys
from click.testing import CliRunner
from sluice.cli import main
runner = CliRunner()
print(json.dumps([runner.invoke(main, arguments).output for arguments in json.load(sys.stdin)]))
"""


def commands(stack: LocalStack, runs: dict[str, int | None]) -> Iterator[tuple[str, str]]:
    """What the command line prints about jobs and runs, for people and as JSON, and the reports that it writes."""
    asked = [["status"], ["plan", "canary/copies", "--explain"], ["plan", "canary/cast"], ["plan", "canary/refused"]]
    for number in filter(None, runs.values()):
        page = str(stack.data_dir / f"report-{number}.html")
        asked += [[verb, str(number)] for verb in ("status", "chunks", "watch")]
        asked += [["report", str(number), "--output", page]]
    asked += [[*arguments, "--json"] for arguments in asked]
    sql_root = str(stack.data_dir / "project" / "sql")
    told = subprocess.run(
        [sys.executable, "-c", ASK],
        input=json.dumps(asked),
        env={**os.environ, **stack.env(), "SLUICE_SQL_ROOT": sql_root, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert told.returncode == 0, told.stderr
    for arguments, text in zip(asked, json.loads(told.stdout), strict=True):
        yield f"cli {' '.join(arguments)}", text
    for path in stack.data_dir.glob("report-*.html"):
        yield f"cli {path.name}", path.read_text()


def test_every_failure_happened(evidence: Evidence) -> None:
    assert evidence.ends == {
        "copies": "FAILED CheckFailed",
        "duplicate": "FAILED ChunksQuarantined",
        "cast": "FAILED ChunksQuarantined",
        "refused": "FAILED BadInputError",
        "trap": "FAILED ChunksQuarantined",
        "slow": "FAILED ChunksQuarantined",
        "step": "FAILED ChunksQuarantined",
        "uneven": "FAILED ChunksQuarantined",
    }
    seen = set(evidence.attempts)
    assert {("duplicate", "23505"), ("cast", "22P02"), ("step", "23505"), ("slow", "57014")} <= seen
    assert ("uneven", "RowCountError") in seen
    assert {("trap", code) for code in ("P0001", "45000", "55000", "40001", "42501")} <= seen


def test_the_database_did_quote_it(evidence: Evidence) -> None:
    """Without this the silence elsewhere would prove nothing."""
    assert CANARY.search(evidence.bounds)
    assert CANARY.search(evidence.keys)
    assert CANARY.search(evidence.server_log)


@pytest.mark.parametrize("place", ["s3", "states", "log", "cloudwatch", "event", "ledger", "cli"])
def test_it_is_nowhere_else(evidence: Evidence, place: str) -> None:
    assert evidence.places(place), f"nothing was collected from {place}"
    assert not evidence.leaks(place)


def test_everything_was_collected(evidence: Evidence) -> None:
    names = " ".join(evidence.texts)
    for part in ("round-1.json", "results", "report.json", "report.html", "states child", "cli report-"):
        assert part in names
    assert "copies" in evidence.texts["cli status"]
    assert "Scan" in evidence.texts["cli plan canary/copies --explain"]
    assert any('"RunSeconds"' in text for text in evidence.places("log").values())
    assert any("Sluice Run Finished" in text for text in evidence.places("event").values())
