"""The `sql` and `check` steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.context import Context
from sluice.errors import StatementError
from sluice.finish import finish_run
from sluice.run import open_run, plan_round, work_chunk
from tests.sql.conftest import SCHEMA
from tests.sql.harness import VISITS, Sql, run_to_end, work_off

Contexts = Callable[..., Context]

STEPS = """
steps:
  - {name: note, kind: sql, file: note.sql}
  - name: double
    kind: update
    file: double.sql
    target: public.visits
    key: [VisitDate, SSN]
    flag: UpdateFlag
    stamp: UpdatedDate
    eligible: '"Minutes" >= :least'
    chunk: {target_rows: 50, max_rows: 100}
  - {name: expect, kind: check, file: expect.sql, definition_of: double}
  - {name: last, kind: sql, file: last.sql}
"""
EXPECT = """
-- even
-- the result is even
SELECT "ID", "SSN" FROM public.visits WHERE "Doubled" % 2 = 1
;
-- small
-- few results are large
-- severity: warning
SELECT "ID" FROM public.visits WHERE "Doubled" > 100
"""


@pytest.fixture
def visits(sql_: Sql, pack: Path) -> Sql:
    sql_(SCHEMA)
    sql_(VISITS, 600)
    sql_("CREATE TABLE public.note (run_id bigint, run_ts timestamptz, text text)")
    job = pack / "demo.job.yaml"
    head = job.read_text().split("steps:")[0].replace("factor:", "least:").replace("default: 2", "default: 10")
    job.write_text(head.rstrip() + STEPS)
    (pack / "double.sql").write_text('SELECT chunk.row_id, chunk."Minutes" * 2 AS "Doubled" FROM chunk')
    (pack / "note.sql").write_text("INSERT INTO public.note VALUES (:run_id, :run_ts, 'first; :least');\nSELECT 1;\n")
    (pack / "last.sql").write_text("INSERT INTO public.note VALUES (:run_id, :run_ts, 'last')")
    (pack / "expect.sql").write_text(EXPECT)
    return sql_


def test_steps_run_in_order_and_a_sql_step_once(visits: Sql, context_of: Contexts) -> None:
    run = run_to_end(context_of())
    assert run.state == "succeeded"
    assert run_to_end(context_of()).run_id == run.run_id
    assert visits("SELECT run_id, run_ts, text FROM public.note") == [
        (run.run_id, run.run_ts, "first; :least"),
        (run.run_id, run.run_ts, "last"),
    ]
    assert visits('SELECT min("Minutes"), count(*) FROM public.visits WHERE "UpdatedDate" = %s', run.run_ts)[0][0] == 10


def test_a_sql_step_is_done_once_however_many_ask_for_it(visits: Sql, context_of: Contexts) -> None:
    run_id = open_run(context_of(), "one", {}).run.run_id
    planned = plan_round(context_of(), run_id)
    answers = [work_chunk(context_of(), run_id, planned.step, number) for number, _ in planned.chunks * 3]
    assert {answer.state for answer in answers} == {"done"}
    assert visits("SELECT count(*) FROM public.note") == [(1,)]


def test_a_failing_sql_step_names_file_and_line_and_leaves_nothing(
    visits: Sql, pack: Path, context_of: Contexts
) -> None:
    (pack / "note.sql").write_text("INSERT INTO public.note VALUES (1);\n\n-- wrong\nSELECT 1 / 0;\n")
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    planned = plan_round(context, run_id)
    with pytest.raises(StatementError, match=r"note.sql:4: DivisionByZero \(22012\)"):
        work_chunk(context, run_id, planned.step, 1)
    assert visits("SELECT count(*) FROM public.note") == [(0,)]
    assert work_off(context, run_id).action == "finish"
    assert finish_run(context, run_id).error_code == "ChunksQuarantined"
    assert visits("SELECT count(*) FROM sluice.attempt") == [(1,)]


def test_checks_count_what_offends_and_keep_twenty_of_it_in_the_ledger(visits: Sql, context_of: Contexts) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    work_off(context, run_id)
    assert finish_run(context, run_id).state == "succeeded"
    findings = visits("SELECT name, severity, row_count, jsonb_array_length(keys) FROM sluice.finding ORDER BY name")
    large = visits('SELECT count(*) FROM public.visits WHERE "Doubled" > 100')[0][0]
    assert findings == [
        ("double_agrees", "error", 0, None),
        ("even", "error", 0, None),
        ("small", "warning", large, 20),
    ]


def test_a_failed_check_stops_the_steps_behind_it_until_it_passes(
    visits: Sql, pack: Path, context_of: Contexts
) -> None:
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    while (planned := plan_round(context, run_id)).step != "expect":
        for number, _ in planned.chunks:
            work_chunk(context, run_id, planned.step, number)
    visits("""UPDATE public.visits SET "Doubled" = 21 WHERE "ID" = (SELECT min("ID") FROM public.visits
              WHERE "UpdatedDate" IS NOT NULL)""")
    work_off(context, run_id)
    run = finish_run(context, run_id)
    assert (run.state, run.error_code) == ("failed", "CheckFailed")
    assert run.error is not None and run.error.startswith("2 checks failed")
    assert visits("SELECT name, row_count FROM sluice.finding WHERE severity = 'error' ORDER BY 1") == [
        ("double_agrees", 1),
        ("even", 1),
    ]
    assert visits("SELECT count(*) FROM public.note WHERE text = 'last'") == [(0,)]
    visits('UPDATE public.visits SET "Doubled" = 2 * "Minutes" WHERE "Doubled" = 21')
    assert run_to_end(context_of()).state == "succeeded"
    assert visits("SELECT count(*) FROM public.note WHERE text = 'last'") == [(1,)]
    assert visits("SELECT count(*) FROM public.note") == [(2,)]


def test_a_definition_that_changed_after_the_update_is_found(visits: Sql, pack: Path, context_of: Contexts) -> None:
    (pack / "double.sql").write_text(
        'SELECT chunk.row_id, chunk."Minutes" * (SELECT count(*) FROM public.note)::integer * 2 AS "Doubled" FROM chunk'
    )
    context = context_of()
    run_id = open_run(context, "one", {}).run.run_id
    while (planned := plan_round(context, run_id)).step != "expect":
        for number, _ in planned.chunks:
            work_chunk(context, run_id, planned.step, number)
    visits("INSERT INTO public.note VALUES (0, now(), 'another')")
    work_off(context, run_id)
    assert finish_run(context, run_id).error_code == "CheckFailed"
