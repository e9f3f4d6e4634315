from __future__ import annotations

from sluice.finish import finish_run
from sluice.run import open_run, plan_round, work_chunk
from tests.sql.conftest import SCHEMA


def work_off(context, run_id):
    rounds = []
    while (planned := plan_round(context, run_id)).action == "work":
        rounds.append(planned)
        for number, _ in planned.chunks:
            work_chunk(context, run_id, planned.step, number)
    return planned, rounds


def test_a_run_touches_every_row_once(sql_, context_of):
    sql_(SCHEMA)
    sql_("""INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
         SELECT n, CASE WHEN n % 17 > 0 THEN date '2025-01-01' + n % 9 END,
                CASE WHEN n % 13 > 0 THEN '9' || n % 40 END, n % 300
         FROM generate_series(1, 2000) AS n""")
    context = context_of()
    opened = open_run(context, "one", {})
    planned, rounds = work_off(context, opened.run.run_id)
    assert planned.action == "finish"
    run = finish_run(context, opened.run.run_id)
    assert run.state == "succeeded"
    assert sql_('SELECT "applied", count(*), count("UpdateFlag") FROM public.visits GROUP BY 1') == [(1, 2000, 0)]
