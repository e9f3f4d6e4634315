"""The report of real runs: what it says, that it stays small, and that no key gets into it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from sluice import operate, publish
from sluice.context import Context
from sluice.errors import ChunkBusyError, TransientError
from sluice.finish import finish_run
from sluice.ledger import Ledger, Run, migrate
from sluice.report.collect import MOST_BARS, MOST_ERRORS, MOST_POINTS, MOST_RATES, MOST_SLOWEST, collect
from sluice.report.html import render
from sluice.run import open_run, plan_round, work_chunk
from sluice.settings import settings
from tests.sql.conftest import SCHEMA
from tests.sql.harness import Sql, work_off

Contexts = Callable[..., Context]
JOB = """
job: demo
connections:
  target: {secret: sluice/target}
params:
  note: {type: text, default: the user's own words}
max_concurrency: 2
attempts: {max_failures: 1}
steps:
  - {name: look, kind: check, file: look.sql}
  - name: share
    kind: update
    file: share.sql
    target: public.visits
    key: [VisitDate, SSN]
    flag: UpdateFlag
    stamp: UpdatedDate
    chunk: {target_rows: 50, max_rows: 100}
"""
LOOK = """
-- nobody_from_1987
-- no visit is of the year 1987
-- severity: warning
SELECT "VisitDate", "SSN" FROM public.visits WHERE "VisitDate" < '1988-01-01';

-- minutes_are_known
-- no visit is without its minutes
SELECT "SSN" FROM public.visits WHERE "Minutes" IS NULL;
"""
SHARE = 'SELECT chunk.row_id, 1000 / chunk."Minutes" AS "Doubled", chunk."applied" + 1 AS "applied" FROM chunk'
# Every SSN and every date is a canary: even rows look like an SSN, odd ones do not, so that no mask hides a leak.
VISITS = """
INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
SELECT n, date '1987-03-01' + n % 9,
       CASE WHEN n % 2 = 0 THEN '905-61-' ELSE 'CNRY' END || lpad((n % 40)::text, 4, '0'), 1 + n % 300
FROM generate_series(1, 2000) AS n
"""
CANARIES = ("905-61-", "90561", "CNRY", "1987-03")


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    folder = tmp_path / "packs" / "demo"
    folder.mkdir(parents=True)
    (folder / "demo.job.yaml").write_text(JOB)
    (folder / "look.sql").write_text(LOOK)
    (folder / "share.sql").write_text(SHARE)
    return folder


@pytest.fixture
def visits(sql_: Sql) -> Sql:
    sql_(SCHEMA)
    sql_(VISITS)
    return sql_


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket and an event bus of moto, named in the environment."""
    environment = {
        "SLUICE_BUCKET": "reports",
        "SLUICE_EVENT_BUS": "default",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    forget_clients()
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="reports")
        yield "reports"
    forget_clients()


def forget_clients() -> None:
    for cached in (settings, publish.events, publish.manifest.s3):
        cached.cache_clear()


def finished(context: Context, run_key: str = "one") -> Run:
    opened = open_run(context, run_key, {})
    work_off(context, opened.run.run_id)
    return finish_run(context, opened.run.run_id)


def troubled(sql: Sql, context: Context) -> Run:
    """A run with a chunk in quarantine, one that an operator skipped, a pause, a reset and a warning."""
    sql('UPDATE public.visits SET "Minutes" = 0 WHERE "ID" = 1234')
    opened = open_run(context, "two", {})
    run_id = opened.run.run_id
    for number, _ in plan_round(context, run_id).chunks:
        work_chunk(context, run_id, "look", number)
    first, *_ = plan_round(context, run_id).chunks
    operate.pause(context, run_id, "the application\n is being deployed")
    assert plan_round(context, run_id).action == "stop"
    operate.resume(context, run_id)
    operate.reset(context, run_id, "to be sure")
    operate.skip(context, run_id, "share", first[0], "905-61-0002 is wrong at the source")
    work_off(context, run_id)
    return finish_run(context, run_id)


def test_the_account_of_a_run_agrees_with_the_database(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run = finished(context)
    report = collect(context, run)
    assert report == json.loads(json.dumps(report))
    assert report["run"]["state"] == "succeeded"
    assert report["run"]["params"] == {"note": "the user's own words"}
    totals = report["totals"]
    assert totals["rows_planned"] == totals["rows_marked"] == totals["rows_updated"] == 2000
    assert totals["rows_late"] == totals["rows_drift"] == totals["flags_cleared"] == 0
    [(chunks,)] = visits("SELECT count(*) FROM sluice.chunk")
    assert totals["chunks"] == totals["chunks_done"] == chunks
    assert totals["outcomes"] == {"done": chunks}
    look, share = report["steps"]
    assert (look["kind"], look["chunks"]["done"]) == ("check", 2)
    assert (share["rows_updated"], share["chunks"]["done"], share["waves"]) == (2000, chunks - 2, 1)
    assert report["invariants"] == report["errors"]["list"] == report["holds"] == []
    assert [event["event"] for event in report["events"]["list"]] == ["opened", "succeeded"]


def test_progress_and_rates_add_up_to_the_rows(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    report = collect(context, finished(context))
    rows = [point["rows"] for point in report["progress"]]
    assert rows[0] == 0
    assert rows == sorted(rows)
    assert rows[-1] == 2000
    spread = sum(p["rows_per_second"] * (p["to_seconds"] - p["from_seconds"]) for p in report["rates"])
    assert report["timing"]["working_seconds"] > 0
    # Each rate and each bound is rounded to a thousandth.
    assert spread == pytest.approx(2000, rel=0.2)
    assert sum(bar["chunks"] for bar in report["durations"]["bars"]) == report["durations"]["chunks"]
    assert report["durations"]["p50"] <= report["durations"]["p95"] <= report["durations"]["max"]
    assert report["slowest"][0]["seconds"] == report["durations"]["max"]


def test_a_run_without_rows_has_a_report(sql_: Sql, context_of: Contexts) -> None:
    sql_(SCHEMA)
    context = context_of()
    report = collect(context, finished(context))
    assert report["totals"]["rows_planned"] == 0
    assert report["progress"] == report["rates"] == report["slowest"] == []
    assert report["durations"]["bars"] == []
    assert "No rows were at work." in render(report)


def test_a_run_that_has_not_ended_has_a_report(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run = open_run(context, "one", {}).run
    report = collect(context, run)
    assert report["timing"]["finished"] is None
    assert report["timing"]["seconds"] >= 0
    assert "The run has not ended" in render(report)


def test_a_troubled_run_is_told_in_full(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run = troubled(visits, context)
    report = collect(context, run)
    assert (run.state, report["run"]["error_code"]) == ("failed", "ChunksQuarantined")
    assert report["run"]["generation"] == 2
    totals = report["totals"]
    assert (totals["chunks_quarantined"], totals["chunks_skipped"]) == (1, 1)
    assert totals["chunks_done"] == totals["chunks"] - 2
    assert [(error["code"], error["chunks"]) for error in report["errors"]["list"]] == [("22012", 1)]
    assert [(found["name"], found["rows"]) for found in report["findings"]] == [
        ("minutes_are_known", 0),
        ("nobody_from_1987", 2000),
    ]
    told = [event["event"] for event in report["events"]["list"]]
    assert [name for name in told if name in ("paused", "resumed", "reset", "failed")] == [
        "paused",
        "resumed",
        "paused",
        "reset",
        "failed",
    ]
    assert "the application is being deployed" in [event["detail"] for event in report["events"]["list"]]
    moves = {move["event"]: move for move in report["moves"]["list"]}
    assert moves["skipped"]["detail"] == "***-**-**** is wrong at the source"
    assert moves["quarantined"]["n"] == 1
    share = report["steps"][1]
    assert (share["chunks"]["skipped"], share["chunks"]["quarantined"]) == (1, 1)
    assert sum(point["setbacks"] for point in report["progress"]) == 1


def test_no_key_gets_into_json_or_html(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run = troubled(visits, context)
    [(bounds,)] = visits("SELECT string_agg(hi::text, '') FROM sluice.chunk")
    [(keys,)] = visits("SELECT string_agg(keys::text, '') FROM sluice.finding")
    report = collect(context, run)
    for text in (json.dumps(report), render(report)):
        assert [canary for canary in CANARIES if canary in text] == []
    assert all(canary in bounds + keys for canary in ("905-61-", "CNRY", "1987-03")), "the canaries were not planted"


def test_the_sql_of_a_finding_shows_its_keys(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    report = collect(context, finished(context))
    [line] = [found["read_with"] for found in report["findings"] if found["rows"]]
    [(keys,)] = visits(line)
    assert "CNRY" in keys


def test_the_report_reads_no_bounds_and_no_keys() -> None:
    folder = settings().sql_root / "ledger" / "postgres"
    text = (folder / "report.sql").read_text().split("-- show_keys")[0]
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").replace(".", " ").split())
    assert not words & {"keys", "chunk.*", "finding.*"}
    assert not {"chunk.lo", "chunk.hi", "is_null", "to_jsonb"} & set(text.split())


LONG_RUN = """
INSERT INTO sluice.run (job, run_key, params, job_sha256, state, opened_at, finished_at)
VALUES ('demo/demo', 'long', '{}', '', 'failed', '2025-01-31 04:00Z', '2025-02-01 05:00Z');
INSERT INTO sluice.control (run_id) SELECT run_id FROM sluice.run;
INSERT INTO sluice.step (run_id, step_no, name, kind, wave) SELECT run_id, 1, 'share', 'update', 0 FROM sluice.run;
INSERT INTO sluice.chunk (run_id, step_no, chunk_no, generation, state, rows_updated)
SELECT run_id, 1, n, 1, 'done', 10 FROM sluice.run, generate_series(1, 5000) AS n;
INSERT INTO sluice.attempt (attempt_id, run_id, step_no, chunk_no, pid, backend_start, lease_until,
                            started_at, ended_at, outcome, code, error)
SELECT gen_random_uuid(), run_id, 1, n, 1, now(), now(), at, at + interval '2 seconds',
       CASE WHEN failed THEN 'failed' ELSE 'done' END, CASE WHEN failed THEN 'E' || n END,
       CASE WHEN failed THEN 'text' END
FROM sluice.run, generate_series(1, 5000) AS n, (VALUES (false), (true)) AS kind (failed),
     LATERAL (SELECT timestamptz '2025-01-31 04:00Z' + make_interval(secs => n, days => n / 2501)) AS place (at);
INSERT INTO sluice.event (at, run_id, step_no, chunk_no, generation, attempt_id, event, n)
SELECT ended_at, run_id, 1, chunk_no, 1, attempt_id, 'done', 10 FROM sluice.attempt WHERE outcome = 'done';
INSERT INTO sluice.event (run_id, generation, event, detail)
SELECT run_id, 1, 'paused', n FROM sluice.run, generate_series(1, 500) AS n;
INSERT INTO sluice.event (run_id, step_no, chunk_no, generation, event, detail)
SELECT run_id, 1, n, 1, 'skipped', n FROM sluice.run, generate_series(1, 500) AS n;
INSERT INTO sluice.event (run_id, step_no, generation, event, n, detail)
SELECT run_id, 1, 1, 'held', 30, 'lock_wait: ' || n || ' s, the limit is 5 s'
FROM sluice.run, generate_series(1, 500) AS n;
"""


@pytest.fixture
def long_run(sql_: Sql, context_of: Contexts) -> tuple[Context, Run]:
    """A run of 5,000 chunks and 10,000 attempts over two days, written straight into the ledger."""
    context = context_of()
    with context.transaction() as transaction:
        migrate(transaction)
    sql_(LONG_RUN)
    with context.transaction() as transaction:
        return context, Ledger(transaction).run(1)


def test_the_report_of_5000_chunks_is_small(long_run: tuple[Context, Run]) -> None:
    report = collect(*long_run)
    assert len(report["progress"]) <= MOST_POINTS + 1
    assert len(report["rates"]) == MOST_RATES
    assert len(report["durations"]["bars"]) <= MOST_BARS
    assert len(report["slowest"]) == MOST_SLOWEST
    assert (report["errors"]["total"], len(report["errors"]["list"])) == (5000, MOST_ERRORS)
    assert report["events"]["total"] == report["moves"]["total"] == 500
    assert len(json.dumps(report)) < 64_000
    assert len(render(report)) < 128_000


def test_a_long_pause_is_no_working_time(long_run: tuple[Context, Run]) -> None:
    report = collect(*long_run)
    timing = report["timing"]
    assert timing["seconds"] == timedelta(hours=25).total_seconds()
    assert timing["working_seconds"] == pytest.approx(5003, abs=2)
    [pause] = timing["pauses"]
    assert pause["seconds"] == pytest.approx(86_400, abs=2)
    assert pause["at_seconds"] == pytest.approx(2502, abs=2)
    assert report["progress"][-1]["rows"] == 50_000
    assert sum(point["setbacks"] for point in report["progress"]) == 5000
    steady = [part["rows_per_second"] for part in report["rates"][2:-2]]
    assert min(steady) == pytest.approx(10, rel=0.05)
    assert max(steady) == pytest.approx(10, rel=0.05)


def test_holds_are_summed_by_check(long_run: tuple[Context, Run], sql_: Sql) -> None:
    context, run = long_run
    sql_("UPDATE sluice.step SET held = 'replica_lag: 9 s', held_since = clock_timestamp() - interval '1 minute'")
    ended, present = collect(context, run)["holds"]
    assert (ended["check"], ended["times"], ended["seconds"], ended["now"]) == ("lock_wait", 500, 15_000, False)
    assert ended["reason"] == "lock_wait: 500 s, the limit is 5 s"
    assert (present["check"], present["now"]) == ("replica_lag", True)
    assert present["seconds"] >= 60


def test_publish_writes_the_report_and_its_address_with_moto(
    visits: Sql, context_of: Contexts, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    context = context_of()
    run = troubled(visits, context)
    uri = publish.publish(context, run)
    assert uri == f"s3://reports/runs/{run.run_id}/report.html"
    assert visits("SELECT report FROM sluice.run") == [(uri,)]
    texts = [capsys.readouterr().out]
    for name in ("report.json", "report.html"):
        stored = boto3.client("s3").get_object(Bucket=bucket, Key=f"runs/{run.run_id}/{name}")
        texts.append(stored["Body"].read().decode())
    assert [canary for canary in CANARIES for text in texts if canary in text] == []


def test_publish_tells_once_however_often_it_is_called_with_moto(
    visits: Sql, context_of: Contexts, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []
    context = context_of()
    run = finished(context)
    monkeypatch.setattr(publish, "send_event", lambda report, uri: sent.append(uri))
    assert [publish.publish(context, run) for _ in range(3)] == sent * 3
    assert len(sent) == 1


@pytest.mark.parametrize("step", ["write_report", "send_event", "emit_metrics"])
def test_publish_goes_through_after_a_crash_with_moto(
    visits: Sql, context_of: Contexts, bucket: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    context = context_of()
    run = finished(context)
    real = getattr(publish, step)

    def crash(*arguments: Any) -> None:
        real(*arguments)
        raise TransientError("crash")

    with monkeypatch.context() as crashing:
        crashing.setattr(publish, step, crash)
        with pytest.raises(TransientError):
            publish.publish(context, run)
    assert visits("SELECT report FROM sluice.run") == [(None,)]
    uri = publish.publish(context, run)
    assert visits("SELECT report FROM sluice.run") == [(uri,)]


def test_a_second_publisher_is_kept_out_with_moto(
    visits: Sql, context_of: Contexts, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = context_of(), context_of()
    run = finished(first)
    sent: list[str] = []

    def meanwhile(report: Any, uri: str) -> None:
        sent.append(uri)
        with pytest.raises(ChunkBusyError):
            publish.publish(second, run)

    monkeypatch.setattr(publish, "send_event", meanwhile)
    publish.publish(first, run)
    assert len(sent) == 1
