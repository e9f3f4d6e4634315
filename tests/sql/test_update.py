"""The update step on a real PostgreSQL: what the protocol promises of a run that meets trouble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg2
import pytest

from sluice import operate
from sluice.context import Context
from sluice.deadline import Deadline
from sluice.errors import (
    BadInputError,
    ChunkBusyError,
    DeadlineNearError,
    RowCountError,
    RunCancelledError,
    RunKeyReusedError,
    StatementTimeoutError,
    TargetBusyError,
)
from sluice.finish import Problem, finish_run
from sluice.run import open_run, plan_round, work_chunk
from tests.sql.conftest import SCHEMA
from tests.sql.harness import VISITS, Sql, applications, ledger_is_sound, run_to_end, work_off

Contexts = Callable[..., Context]
MODES = ("visible", "fused", "run")


@pytest.fixture
def visits(sql_: Sql) -> Sql:
    sql_(SCHEMA)
    sql_(VISITS, 2000)
    return sql_


def use(pack: Path, old: str, new: str) -> None:
    """Change the job file."""
    path = pack / "demo.job.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("mode", MODES)
def test_every_row_is_applied_once_and_freed(visits: Sql, pack: Path, context_of: Contexts, mode: str) -> None:
    use(pack, "flag: UpdateFlag", f"flag: UpdateFlag\n    mark: {mode}")
    run = run_to_end(context_of())
    assert run.state == "succeeded"
    assert applications(visits) == {1: 2000}
    wrong = 'SELECT count(*) FROM public.visits WHERE "Doubled" <> 2 * "Minutes" OR "UpdateFlag" IS NOT NULL'
    assert visits(wrong) == [(0,)]
    ledger_is_sound(visits, run.run_id)


@pytest.mark.parametrize("mode", MODES)
def test_s1_a_second_execution_changes_no_row(visits: Sql, pack: Path, context_of: Contexts, mode: str) -> None:
    use(pack, "flag: UpdateFlag", f"flag: UpdateFlag\n    mark: {mode}")
    first = run_to_end(context_of())
    before = visits('SELECT xmin::text, ctid::text, * FROM public.visits ORDER BY "ID"')
    again = run_to_end(context_of())
    assert again.run_id == first.run_id and again.state == "succeeded"
    assert visits('SELECT xmin::text, ctid::text, * FROM public.visits ORDER BY "ID"') == before


def test_s2_a_chunk_that_died_between_mark_and_apply_is_finished(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunk = plan_round(context, run_id).chunks[0][0]
    mark_only(context, run_id, chunk)
    assert visits('SELECT count(*) > 0 FROM public.visits WHERE "UpdateFlag" = 1') == [(True,)]
    assert work_chunk(context_of(), run_id, "double", chunk).state == "done"
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded"
    assert applications(visits) == {1: 2000}


def mark_only(context: Context, run_id: int, chunk_no: int) -> None:
    """The first transaction of a chunk, after which its worker dies."""
    from sluice.attempts import Attempt
    from sluice.ledger import Ledger
    from sluice.steps.update import UpdateKind, update_sql, update_step

    with context.transaction() as transaction:
        ledger = Ledger(transaction)
        attempt = Attempt(ledger.run(run_id), ledger.step(run_id, "double"), chunk_no)
        statements = update_sql(context, transaction, update_step(context, attempt.step), attempt.run)
        assert UpdateKind()._advance(ledger, attempt, statements) is None


def test_s3_two_executions_are_one_run(visits: Sql, context_of: Contexts) -> None:
    one, two = context_of(), context_of()
    first, second = open_run(one, "one", {}), open_run(two, "one", {})
    assert (first.run.run_id, second.attached) == (second.run.run_id, True)
    planned = plan_round(one, first.run.run_id)
    assert plan_round(two, first.run.run_id).chunks == planned.chunks
    for number, _ in planned.chunks:
        answers = [work_chunk(context, first.run.run_id, "double", number) for context in (one, two)]
        assert answers[0] == answers[1]
    work_off(two, first.run.run_id)
    assert finish_run(one, first.run.run_id).state == "succeeded"
    assert applications(visits) == {1: 2000}


def test_s4_a_statement_whose_client_is_gone_does_not_commit(visits: Sql, database: str, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunk = plan_round(context, run_id).chunks[0][0]
    zombie = psycopg2.connect(database)
    zombie.cursor().execute("SELECT FROM sluice.chunk WHERE run_id = %s AND chunk_no = %s FOR UPDATE", (run_id, chunk))
    with pytest.raises(ChunkBusyError):
        work_chunk(context, run_id, "double", chunk)
    zombie.close()
    assert work_chunk(context, run_id, "double", chunk).state == "done"
    assert set(applications(visits)) == {0, 1}


def test_s5_a_hand_reset_of_the_flag_loses_nothing(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    for number, _ in plan_round(context, run_id).chunks:
        mark_only(context, run_id, number)
        visits('UPDATE public.visits SET "UpdateFlag" = NULL WHERE "UpdateFlag" = 1')
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded"
    assert applications(visits) == {1: 2000}
    ledger_is_sound(visits, run_id)


def test_s6_rows_that_move_to_a_later_chunk_are_not_applied_twice(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunks = plan_round(context, run_id).chunks
    work_chunk(context, run_id, "double", chunks[0][0])
    moved = """UPDATE public.visits SET "VisitDate" = '2025-01-09' WHERE "applied" = 1 AND "ID" % 2 = 0 RETURNING 1"""
    assert len(visits(moved)) > 5
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded"
    assert applications(visits) == {1: 2000}


def test_s6b_rows_that_leave_their_chunk_while_marked_are_found_by_the_sweep(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunks = plan_round(context, run_id).chunks
    for number, _ in chunks[1:]:
        work_chunk(context, run_id, "double", number)
    mark_only(context, run_id, chunks[0][0])
    visits("""UPDATE public.visits SET "VisitDate" = '2025-01-09', "SSN" = '900-00-9999' WHERE "UpdateFlag" = 1""")
    work_off(context, run_id)
    run = finish_run(context, run_id)
    assert run.state == "succeeded"
    assert applications(visits) == {1: 2000}
    assert visits("SELECT late_rows > 0 FROM sluice.step WHERE run_id = %s", run_id) == [(True,)]
    assert visits('SELECT count("UpdateFlag") FROM public.visits') == [(0,)]


def test_s7_chunks_are_ranges_of_whole_keys_and_never_overlap(visits: Sql, context_of: Contexts) -> None:
    run = run_to_end(context_of())
    sums = visits("SELECT sum(est_rows), sum(rows_updated) FROM sluice.chunk WHERE run_id = %s", run.run_id)
    assert sums == [(2000, 2000)]


def test_s8_rows_with_a_null_in_the_key_are_updated(visits: Sql, context_of: Contexts) -> None:
    run_to_end(context_of())
    assert visits(
        'SELECT count(*) > 0, bool_and("applied" = 1) FROM public.visits WHERE "SSN" IS NULL OR "VisitDate" IS NULL'
    ) == [(True, True)]
    assert visits("SELECT count(*) FROM sluice.chunk WHERE is_null") == [(1,)]


@pytest.mark.parametrize(
    ("policy", "state", "counts"),
    [
        ("sweep", "succeeded", {1: 2010}),
        ("report", "succeeded_with_drift", {0: 10, 1: 2000}),
    ],
)
def test_rows_that_come_late(
    visits: Sql, pack: Path, context_of: Contexts, policy: str, state: str, counts: dict[int, int]
) -> None:
    use(pack, "flag: UpdateFlag", f"flag: UpdateFlag\n    late_rows: {policy}")
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    for number, _ in plan_round(context, run_id).chunks:
        work_chunk(context, run_id, "double", number)
    visits("""INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
              SELECT 10000 + n, '2025-01-03', '900-00-0001', 7 FROM generate_series(1, 10) AS n""")
    work_off(context, run_id)
    assert finish_run(context, run_id).state == state
    assert applications(visits) == counts


def test_a_run_key_names_one_run(visits: Sql, pack: Path, context_of: Contexts) -> None:
    open_run(context_of(), "one", {})
    with pytest.raises(RunKeyReusedError, match="other parameters"):
        open_run(context_of(), "one", {"factor": 3})
    (pack / "double.sql").write_text((pack / "double.sql").read_text() + " -- changed")
    with pytest.raises(RunKeyReusedError, match="changed since"):
        open_run(context_of(), "one", {})
    assert open_run(context_of(), "one", {}, accept_changes=True).attached


def test_one_active_run_a_target(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    first = open_run(context, "one", {}).run
    with pytest.raises(TargetBusyError, match=f"run 'one' of demo/demo \\(run {first.run_id}\\) is active"):
        open_run(context_of(), "two", {})
    assert visits("SELECT count(*) FROM sluice.run") == [(1,)]
    work_off(context, first.run_id)
    finish_run(context, first.run_id)
    assert open_run(context_of(), "two", {}).run.state == "running"


def test_pause_stops_new_transactions_and_resume_goes_on(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunks = plan_round(context, run_id).chunks
    work_chunk(context, run_id, "double", chunks[0][0])
    operate.pause(context_of(), run_id, "month end")
    before = applications(visits)
    assert work_chunk(context, run_id, "double", chunks[1][0]).state == "stopped"
    assert plan_round(context, run_id).action == "stop"
    assert applications(visits) == before
    operate.resume(context_of(), run_id)
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded"
    assert applications(visits) == {1: 2000}
    assert visits("SELECT sum(failures + timeouts + transients) FROM sluice.chunk") == [(0,)]


def test_cancel_keeps_what_was_applied_and_frees_the_rest(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunks = plan_round(context, run_id).chunks
    work_chunk(context, run_id, "double", chunks[0][0])
    mark_only(context, run_id, chunks[1][0])
    operate.cancel(context, run_id, "wrong day")
    assert plan_round(context, run_id).action == "finish"
    assert finish_run(context, run_id).state == "cancelled"
    assert visits('SELECT count("UpdateFlag") FROM public.visits') == [(0,)]
    with pytest.raises(RunCancelledError):
        open_run(context, "one", {})
    operate.resume(context, run_id)
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded"
    assert applications(visits) == {1: 2000}


def test_reset_makes_earlier_attempts_stale_and_applies_only_what_is_left(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunks = plan_round(context, run_id).chunks
    work_chunk(context, run_id, "double", chunks[0][0])
    mark_only(context, run_id, chunks[1][0])
    operate.reset(context_of(), run_id, "start over")
    assert visits('SELECT count("UpdateFlag") FROM public.visits') == [(0,)]
    assert visits("SELECT generation FROM sluice.run") == [(2,)]
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded"
    assert applications(visits) == {1: 2000}
    ledger_is_sound(visits, run_id)


def test_a_select_that_does_not_give_each_row_once_is_refused(visits: Sql, pack: Path, context_of: Contexts) -> None:
    (pack / "double.sql").write_text('SELECT chunk.row_id, 1 AS "Doubled" FROM chunk, (VALUES (1), (2)) AS twice')
    with pytest.raises(BadInputError, match="gave 2 rows and 1 of the chunk's 1 were updated"):
        open_run(context_of(), "one", {})
    (pack / "double.sql").write_text('SELECT chunk.row_id, 1 AS "Doubled" FROM chunk WHERE chunk."ID" % 2 = 0')
    context = context_of()
    run_id = open_run(context, "two", {}).run.run_id if even_first(visits) else None
    assert run_id is not None
    with pytest.raises(RowCountError, match="exactly once"):
        work_chunk(context, run_id, "double", plan_round(context, run_id).chunks[0][0])
    assert applications(visits) == {0: 2000}


def even_first(visits: Sql) -> bool:
    """Make the row that the rehearsal finds first an even one."""
    visits('DELETE FROM public.visits WHERE "ID" = 1')
    visits("""INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes") VALUES (1, '2025-01-01', 'x', 1)""")
    return True


def test_a_stamp_that_a_trigger_overwrites_is_refused_before_a_row_changes(visits: Sql, context_of: Contexts) -> None:
    visits("""CREATE FUNCTION public.touch() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN NEW."UpdatedDate" := now(); RETURN NEW; END $$""")
    visits("CREATE TRIGGER touch BEFORE UPDATE ON public.visits FOR EACH ROW EXECUTE FUNCTION public.touch()")
    with pytest.raises(BadInputError, match="a trigger on public.visits overwrites"):
        open_run(context_of(), "one", {})
    assert applications(visits) == {0: 2000}
    assert visits("SELECT to_regclass('sluice.run')") == [(None,)]


def test_a_second_timeout_splits_the_chunk_at_a_group(visits: Sql, pack: Path, context_of: Contexts) -> None:
    use(pack, "params:", "statement_timeout_seconds: 1\nparams:")
    (pack / "double.sql").write_text(
        'SELECT chunk.row_id, chunk."applied" + 1 AS "applied" FROM chunk, '
        "(SELECT pg_sleep(CASE WHEN count(*) > 45 THEN 3 ELSE 0 END) FROM chunk) AS slow"
    )
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    first = plan_round(context, run_id).chunks[0][0]
    for _ in range(2):
        with pytest.raises(StatementTimeoutError):
            work_chunk(context, run_id, "double", first)
    planned = plan_round(context, run_id)
    children = visits("SELECT chunk_no FROM sluice.chunk WHERE parent_no = %s ORDER BY 1", first)
    assert len(children) == 2 and {number for number, _ in planned.chunks} >= {number for (number,) in children}
    assert [work_chunk(context, run_id, "double", number).state for (number,) in children] == ["done", "done"]


def test_a_chunk_that_keeps_failing_is_set_aside_and_fails_the_run_at_its_end(
    visits: Sql, pack: Path, context_of: Contexts
) -> None:
    (pack / "double.sql").write_text(
        'SELECT chunk.row_id, chunk."applied" + 1 AS "applied", 1 / (chunk."Minutes" - 7) AS "Doubled" FROM chunk'
    )
    visits("""UPDATE public.visits SET "Minutes" = 8 WHERE "Minutes" = 7 AND "ID" <> 1507""")
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    assert work_off(context, run_id).action == "finish"
    run = finish_run(context, run_id)
    assert (run.state, run.error_code) == ("failed", "ChunksQuarantined")
    quarantined = visits("SELECT rows_updated, last_code, last_error FROM sluice.chunk WHERE state = 'quarantined'")
    assert len(quarantined) == 1 and quarantined[0][1] == "22012" and "1507" not in quarantined[0][2]
    assert applications(visits)[1] > 1800
    visits("""UPDATE public.visits SET "Minutes" = 8 WHERE "ID" = 1507""")
    again = run_to_end(context_of())
    assert (again.run_id, again.state) == (run_id, "succeeded")
    assert applications(visits) == {1: 2000}


def test_an_operator_skips_a_chunk_and_the_sweep_leaves_it_alone(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunk, rows = plan_round(context, run_id).chunks[1]
    operate.skip(context, run_id, "double", chunk, "known bad day")
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded_with_drift"
    assert applications(visits) == {0: rows, 1: 2000 - rows}


def test_an_operator_splits_a_chunk(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    operate.split(context, run_id, "double", plan_round(context, run_id).chunks[0][0])
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded"
    assert applications(visits) == {1: 2000}


def test_no_transaction_starts_when_the_time_is_up(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunk = plan_round(context, run_id).chunks[0][0]
    with pytest.raises(DeadlineNearError):
        work_chunk(context_of(Deadline(lambda: 1.0)), run_id, "double", chunk)
    assert applications(visits) == {0: 2000}


def test_a_health_check_holds_chunks_back(visits: Sql, pack: Path, context_of: Contexts) -> None:
    (pack / "calm.sql").write_text("SELECT 'maintenance' FROM public.maintenance")
    visits("CREATE TABLE public.maintenance AS SELECT 1 AS one")
    use(pack, "steps:", "throttle:\n  - {name: calm, file: calm.sql}\nsteps:")
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    planned = plan_round(context, run_id)
    assert (planned.action, planned.reason) == ("wait", "calm: maintenance")
    assert visits("SELECT held FROM sluice.step") == [("calm: maintenance",)]
    visits("DELETE FROM public.maintenance")
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded"


def test_a_partitioned_target(sql_: Sql, context_of: Contexts) -> None:
    sql_(
        SCHEMA.replace("bigint PRIMARY KEY", "bigint").replace(
            '"UpdatedDate" timestamptz);', '"UpdatedDate" timestamptz) PARTITION BY RANGE ("VisitDate");'
        )
    )
    sql_("""CREATE TABLE public.early PARTITION OF public.visits FOR VALUES FROM (MINVALUE) TO ('2025-01-05');
            CREATE TABLE public.rest PARTITION OF public.visits DEFAULT""")
    sql_(VISITS, 2000)
    assert run_to_end(context_of()).state == "succeeded"
    assert applications(sql_) == {1: 2000}


def test_one_chunk_for_everything(visits: Sql, pack: Path, context_of: Contexts) -> None:
    use(pack, "chunk: {target_rows: 50, max_rows: 100}", "chunk: {whole: true}")
    run = run_to_end(context_of())
    assert run.state == "succeeded"
    assert applications(visits) == {1: 2000}
    assert visits("SELECT count(*) FROM sluice.chunk") == [(1,)]


def test_a_run_is_not_taken_up_again_after_a_later_one_worked_its_target(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    first = open_run(context, "one", {}).run
    work_chunk(context, first.run_id, "double", plan_round(context, first.run_id).chunks[0][0])
    finish_run(context, first.run_id, Problem("Stopped", "for the test"))
    assert run_to_end(context, "two").state == "succeeded"
    counts = applications(visits)
    for again in (lambda: open_run(context, "one", {}), lambda: operate.resume(context, first.run_id)):
        with pytest.raises(RunKeyReusedError, match=r"run 'two' of demo/demo \(run 2\) has worked public.visits since"):
            again()
    assert applications(visits) == counts


def test_cleared_flags_do_not_pass_for_done_in_mode_run(visits: Sql, pack: Path, context_of: Contexts) -> None:
    use(pack, "flag: UpdateFlag", "flag: UpdateFlag\n    mark: run\n    late_rows: report")
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    for number, _ in plan_round(context, run_id).chunks:
        assert work_chunk(context, run_id, "double", number).state == "marked"
    visits('UPDATE public.visits SET "UpdateFlag" = NULL')
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded"
    assert applications(visits) == {1: 2000}


def test_an_error_of_the_state_machine_ends_the_run_and_the_next_start_goes_on(
    visits: Sql, context_of: Contexts
) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunk = plan_round(context, run_id).chunks[0][0]
    mark_only(context, run_id, chunk)
    run = finish_run(context, run_id, Problem("States.DataLimitExceeded", "too much"))
    assert (run.state, run.error_code) == ("failed", "States.DataLimitExceeded")
    assert visits('SELECT count("UpdateFlag") FROM public.visits') == [(0,)]
    assert work_chunk(context, run_id, "double", chunk).state == "stopped"
    assert run_to_end(context_of()).state == "succeeded"
    assert applications(visits) == {1: 2000}


def test_a_run_whose_end_was_interrupted_goes_on_when_it_is_started_again(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    chunk = plan_round(context, run_id).chunks[0][0]
    visits("UPDATE sluice.control SET desired = 'finish'")
    assert work_chunk(context, run_id, "double", chunk).state == "stopped"
    assert plan_round(context, run_id).action == "finish"
    assert run_to_end(context_of()).state == "succeeded"
    assert applications(visits) == {1: 2000}
