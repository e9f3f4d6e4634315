"""The views that operators look at."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import pytest

from sluice import operate
from sluice.attempts import Attempt, end, start
from sluice.deadline import Deadline
from sluice.errors import TransientError
from sluice.finish import Problem, finish_run
from sluice.ledger import Ledger
from sluice.run import open_run, plan_round, work_chunk
from tests.sql.conftest import SCHEMA

STUCK = "SELECT chunk_no, reason, why FROM sluice.stuck_chunks WHERE run_id = %s ORDER BY chunk_no"
PROGRESS = "SELECT progress, rows_done, rows_total, rows_late FROM sluice.run_status"


def fill(sql_, rows=400):
    sql_(SCHEMA)
    add(sql_, 1, rows)


def add(sql_, first, last, day="2025-01-01"):
    sql_(
        """INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
           SELECT n, %s::date + n %% 9, '9' || n %% 40, n %% 300 FROM generate_series(%s, %s) AS n""",
        day,
        first,
        last,
    )


@pytest.fixture
def planned(sql_, context_of):
    """A context and a run whose first round is planned."""
    fill(sql_)
    context = context_of()
    run = open_run(context, "one", {}).run
    return context, run, plan_round(context, run.run_id)


def attempt_of(context, run, chunk_no):
    with context.transaction() as transaction:
        ledger = Ledger(transaction)
        return Attempt(ledger.run(run.run_id), ledger.step(run.run_id, "double"), chunk_no)


def only_first(sql_):
    """Leaves one chunk to look at."""
    sql_("DELETE FROM sluice.chunk WHERE chunk_no > 1")


def test_every_view_and_column_says_what_it_means(sql_, planned):
    missing = sql_(
        """SELECT class.relname, attribute.attname
           FROM pg_class AS class
           JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid AND attribute.attnum >= 0
           WHERE class.relnamespace = 'sluice'::regnamespace AND class.relkind = 'v'
             AND coalesce(length(col_description(class.oid, attribute.attnum)), 0) < 10
           UNION ALL
           SELECT relname, '' FROM pg_class
           WHERE relnamespace = 'sluice'::regnamespace AND relkind = 'v' AND obj_description(oid) IS NULL"""
    )
    assert missing == []
    views = sql_("SELECT viewname FROM pg_views WHERE schemaname = 'sluice' ORDER BY 1")
    assert views == [("chunk_status",), ("run_status",), ("step_status",), ("stuck_chunks",)]


def test_no_view_shows_a_key(sql_, planned):
    shown = sql_(
        """SELECT string_agg(row_to_json(v)::text, ' ') FROM sluice.chunk_status AS v
           UNION ALL SELECT string_agg(row_to_json(v)::text, ' ') FROM sluice.run_status AS v
           UNION ALL SELECT string_agg(row_to_json(v)::text, ' ') FROM sluice.step_status AS v"""
    )
    (bound,) = sql_("SELECT hi ->> 0 FROM sluice.chunk WHERE hi IS NOT NULL LIMIT 1")[0]
    assert bound.startswith("2025-01-0")
    assert all(bound not in text for (text,) in shown)
    columns = sql_(
        """SELECT attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
           WHERE relnamespace = 'sluice'::regnamespace AND relkind = 'v'"""
    )
    assert not {"lo", "hi", "keys"} & {name for (name,) in columns}


def test_progress_rises_to_100_and_falls_only_for_late_rows(sql_, planned):
    context, run, round_ = planned
    seen = [sql_(PROGRESS)[0]]
    late_added = False
    while round_.action == "work":
        for number, _ in round_.chunks:
            work_chunk(context, run.run_id, round_.step, number)
            seen.append(sql_(PROGRESS)[0])
        if not late_added:
            add(sql_, 1001, 1100, day="2026-01-01")
            late_added = True
        round_ = plan_round(context, run.run_id)
        seen.append(sql_(PROGRESS)[0])
    assert seen[0] == (0, 0, 400, 0)
    assert seen[-1] == (100, 500, 500, 100)
    assert all(0 <= progress <= 100 and done <= total for progress, done, total, _ in seen)
    falls = [(before, after) for before, after in pairwise(seen) if after[0] < before[0]]
    assert falls == [((100, 400, 400, 0), (Decimal("80.0"), 400, 500, 100))]


def test_rows_beyond_the_plan_never_make_more_than_100_percent(sql_, planned):
    context, run, round_ = planned
    add(sql_, 2001, 2400)
    number, _ = round_.chunks[0]
    work_chunk(context, run.run_id, "double", number)
    progress, done, total, late = sql_(PROGRESS)[0]
    assert done > dict(round_.chunks)[number]
    assert progress <= 100 and done < total and late == 0


def test_a_split_keeps_the_sums(sql_, planned):
    context, run, _ = planned
    before = sql_(PROGRESS)
    operate.split(context, run.run_id, "double", 1)
    assert sql_(PROGRESS) == before
    family = sql_("SELECT state FROM sluice.chunk_status WHERE parent_no = 1 OR chunk_no = 1 ORDER BY chunk_no")
    assert family == [("split",), ("planned",), ("planned",)]


def test_a_chunk_that_waits_its_turn_or_is_at_work_is_not_stuck(sql_, planned, context_of):
    context, run, _ = planned
    attempt = attempt_of(context, run, 1)
    start(context, attempt)
    assert sql_(STUCK, run.run_id) == []
    assert sql_("SELECT at_work FROM sluice.chunk_status WHERE chunk_no = 1") == [(True,)]
    end(context, attempt, "transient", TransientError())
    assert sql_(STUCK, run.run_id) == []


def test_stuck_session_gone(sql_, planned, context_of):
    context, run, _ = planned
    only_first(sql_)
    worker = context_of()
    start(worker, attempt_of(context, run, 1))
    pid = worker.database.backend_pid()
    worker.database.close()
    wait_for_end_of(sql_, pid)
    assert sql_(STUCK, run.run_id)[0][:2] == (1, "session_gone")


def wait_for_end_of(sql_, pid):
    """A closed connection's session ends a moment later."""
    deadline = Deadline.after(20)
    while sql_("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid):
        assert deadline.seconds_left() > 0


def test_stuck_lease_over(sql_, planned, context_of):
    context, run, _ = planned
    only_first(sql_)
    start(context_of(), attempt_of(context, run, 1))
    sql_("UPDATE sluice.attempt SET lease_until = clock_timestamp() - interval '1 minute'")
    assert sql_(STUCK, run.run_id)[0][:2] == (1, "lease_over")


def test_stuck_failing(sql_, planned):
    context, run, _ = planned
    only_first(sql_)
    for _ in range(2):
        attempt = attempt_of(context, run, 1)
        start(context, attempt)
        end(context, attempt, "transient", TransientError("deadlock detected", sqlstate="40P01"))
    assert sql_(STUCK, run.run_id) == [(1, "failing", "its last 2 attempts failed")]
    assert sql_("SELECT since IS NOT NULL, last_code FROM sluice.stuck_chunks") == [(True, "40P01")]


def test_stuck_held(sql_, planned):
    context, run, _ = planned
    only_first(sql_)
    with context.transaction() as transaction:
        Ledger(transaction).row("set_held", run_id=run.run_id, step_no=1, reason="lock_wait: 9 s, the limit is 5 s")
    assert sql_(STUCK, run.run_id) == [(1, "held", "a health check holds it back: lock_wait: 9 s, the limit is 5 s")]
    assert sql_("SELECT state, reason FROM sluice.run_status") == [("held", "lock_wait: 9 s, the limit is 5 s")]


def test_stuck_stopped_by_an_operator(sql_, planned):
    context, run, _ = planned
    only_first(sql_)
    operate.pause(context, run.run_id, "month end")
    assert sql_(STUCK, run.run_id) == [(1, "stopped_by_operator", "an operator asked to pause: month end")]
    assert sql_("SELECT state, reason FROM sluice.run_status") == [("paused", "month end")]


def test_stuck_quarantined_and_ended(sql_, planned):
    context, run, _ = planned
    sql_("DELETE FROM sluice.chunk WHERE chunk_no > 2")
    with context.transaction() as transaction:
        Ledger(transaction).execute(
            "set_chunk_state", run_id=run.run_id, step_no=1, chunk_no=1, state="quarantined", reason="failed too often"
        )
    assert [row[:2] for row in sql_(STUCK, run.run_id)] == [(1, "quarantined")]
    finish_run(context, run.run_id, Problem("StatementError", "no"))
    assert [row[:2] for row in sql_(STUCK, run.run_id)] == [(1, "quarantined"), (2, "run_ended")]
    open_run(context, "two", {})
    assert sql_(STUCK, run.run_id) == []


def test_stuck_idle(sql_, planned):
    _, run, _ = planned
    only_first(sql_)
    sql_("UPDATE sluice.event SET at = at - interval '30 minutes'")
    sql_("UPDATE sluice.control SET changed_at = changed_at - interval '30 minutes'")
    assert sql_(STUCK, run.run_id)[0][:2] == (1, "idle")
