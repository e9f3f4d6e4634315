"""No statement, transaction or lock of a worker outlives its budget (I17), and workers do not deadlock (I18)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from sluice.context import Context
from sluice.databases import postgres
from sluice.deadline import Deadline
from sluice.errors import (
    ChunkBusyError,
    DatabaseUnavailableError,
    DeadlineNearError,
    StatementTimeoutError,
    TransientError,
)
from sluice.run import open_run, plan_round, work_chunk
from tests.sql.conftest import SCHEMA
from tests.sql.harness import VISITS, Sql, applications, work_off

Contexts = Callable[..., Context]

FROZEN = """
import sys, psycopg2, os, signal
from pathlib import Path
from sluice.context import Context
from sluice.databases import postgres
from sluice.job_file import read_job
from tests.connections import facts_of
postgres.IDLE_TIMEOUT_SECONDS = 1.0
context = Context(read_job(Path(sys.argv[2])), postgres.Postgres(lambda force: facts_of(sys.argv[1])))
with context.transaction("sluice:frozen") as transaction:
    transaction.execute('UPDATE public.visits SET "applied" = 99')
    print("open", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
"""


@pytest.fixture
def visits(sql_: Sql) -> Sql:
    sql_(SCHEMA)
    sql_(VISITS, 400)
    return sql_


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to hold"
        time.sleep(0.05)


def test_i17_a_statement_ends_when_the_time_of_the_lambda_does(visits: Sql, pack: Path, context_of: Contexts) -> None:
    (pack / "double.sql").write_text('SELECT chunk.row_id, 1 AS "Doubled" FROM chunk, pg_sleep(0.5)')
    run_id = open_run(context_of(), "one", {}).run.run_id
    chunk = plan_round(context_of(), run_id).chunks[0][0]
    (pack / "double.sql").write_text('SELECT chunk.row_id, 1 AS "Doubled" FROM chunk, pg_sleep(600)')
    context = context_of(Deadline.after(4))
    visits("UPDATE sluice.run SET job_sha256 = %s", context.job.sha256)
    with pytest.raises((StatementTimeoutError, DeadlineNearError)):
        work_chunk(context, run_id, "double", chunk)
    assert context.deadline.seconds_left() > 0
    assert applications(visits) == {0: 400}


def test_i17_statements_share_the_time_of_their_transaction(visits: Sql, context_of: Contexts) -> None:
    context = context_of(Deadline.after(6))
    with pytest.raises((StatementTimeoutError, DeadlineNearError)), context.transaction() as transaction:
        for _ in range(10):
            transaction.execute("SELECT pg_sleep(1)")
    assert context.deadline.seconds_left() > 0


def test_i17_a_frozen_worker_loses_its_transaction_and_its_locks(visits: Sql, pack: Path, database: str) -> None:
    command = [sys.executable, "-c", FROZEN, database, str(pack / "demo.job.yaml")]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        assert worker.stdout is not None and worker.stdout.readline() == b"open\n"
        until(lambda: not visits("SELECT 1 FROM pg_stat_activity WHERE application_name = 'sluice:frozen'"))
        visits('UPDATE public.visits SET "Minutes" = 1')
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
        worker.stdout.close() if worker.stdout else None
    assert applications(visits) == {0: 400}


def test_i17_a_row_that_someone_holds_is_not_waited_for_long(visits: Sql, database: str, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunk = plan_round(context, run_id).chunks[0][0]
    holder = psycopg2.connect(database)
    holder.cursor().execute("SELECT FROM public.visits FOR UPDATE")
    with pytest.raises(ChunkBusyError):
        work_chunk(context, run_id, "double", chunk)
    holder.close()
    counts = visits("SELECT failures, timeouts, transients FROM sluice.chunk WHERE chunk_no = %s", chunk)
    assert counts == [(0, 0, 1)]
    assert work_chunk(context, run_id, "double", chunk).state == "done"


def test_a_statement_that_another_session_cancels_is_no_timeout(visits: Sql, context_of: Contexts) -> None:
    def cancel() -> None:
        until(lambda: bool(visits("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")))

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(TransientError, match="cancelled by another session"), context_of().transaction() as transaction:
        transaction.execute("SELECT pg_sleep(60)")
    canceller.join()


def test_a_session_that_is_ended_is_a_lost_connection_and_the_next_one_works(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    with pytest.raises(DatabaseUnavailableError), context.transaction("sluice:ended") as transaction:
        visits("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice:ended'")
        transaction.execute("SELECT 1")
    with context.transaction() as transaction:
        assert transaction.row("SELECT 1 AS one").one == 1
    visits("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sluice'")
    with context.transaction() as transaction:
        assert transaction.row("SELECT 2 AS two").two == 2


def test_an_attempt_whose_lease_is_over_is_cancelled_by_the_next(visits: Sql, pack: Path, context_of: Contexts) -> None:
    (pack / "double.sql").write_text('SELECT chunk.row_id, 1 AS "Doubled" FROM chunk, public.slow')
    visits("CREATE VIEW public.slow AS SELECT 1 AS one")
    run_id = open_run(context_of(), "one", {}).run.run_id
    chunk = plan_round(context_of(), run_id).chunks[0][0]
    visits("CREATE OR REPLACE VIEW public.slow AS SELECT 1 AS one FROM pg_sleep(60)")
    errors: list[Exception] = []

    def first() -> None:
        try:
            work_chunk(context_of(), run_id, "double", chunk)
        except TransientError as error:
            errors.append(error)

    worker = threading.Thread(target=first)
    worker.start()
    until(lambda: bool(visits("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'")))
    visits("UPDATE sluice.attempt SET lease_until = now() - interval '1 second'")
    with pytest.raises((TransientError, StatementTimeoutError, DeadlineNearError)):
        second = context_of(Deadline.after(12))
        work_chunk(second, run_id, "double", chunk)
    worker.join()
    assert [str(error) for error in errors] == ["cancelled by another session"]
    assert visits("SELECT count(*) FROM sluice.attempt WHERE cancelled_at IS NOT NULL") == [(1,)]


def test_i18_workers_side_by_side_do_not_deadlock(visits: Sql, context_of: Contexts) -> None:
    visits(VISITS.replace("generate_series(1, %s)", "generate_series(401, %s)"), 6000)
    run_id = open_run(context_of(), "one", {}).run.run_id
    chunks = [number for number, _ in plan_round(context_of(), run_id).chunks]
    before = visits("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    states: list[str] = []

    def work(share: list[int]) -> None:
        context = context_of()
        states.extend(work_chunk(context, run_id, "double", number).state for number in share)

    workers = [threading.Thread(target=work, args=(chunks[start::4] + chunks[::7],)) for start in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert set(states) == {"done"} and len(states) == sum(len(chunks[start::4] + chunks[::7]) for start in range(4))
    assert visits("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()") == before
    work_off(context_of(), run_id)
    assert applications(visits) == {1: 6000}


def test_the_timeouts_are_those_of_the_module() -> None:
    assert (postgres.LOCK_TIMEOUT_SECONDS, postgres.IDLE_TIMEOUT_SECONDS) == (5.0, 30.0)
