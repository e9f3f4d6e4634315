"""Running a job's rounds in the test's own process, and looking at what they left."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sluice.context import Context
from sluice.errors import SluiceError
from sluice.finish import finish_run
from sluice.ledger import Run
from sluice.run import Round, open_run, plan_round, work_chunk

Sql = Callable[..., list[tuple[Any, ...]]]

VISITS = """
INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
SELECT n, CASE WHEN n %% 17 > 0 THEN date '2025-01-01' + n %% 9 END,
       CASE WHEN n %% 13 > 0 THEN '900-00-' || lpad((n %% 40)::text, 4, '0') END, n %% 300
FROM generate_series(1, %s) AS n
"""


def work_off(context: Context, run_id: int, most_rounds: int = 50) -> Round:
    """Plan and work rounds until there is nothing to work; gives the last answer. Errors stay in the ledger."""
    for _ in range(most_rounds):
        planned = plan_round(context, run_id)
        if planned.action != "work":
            return planned
        for number, _rows in planned.chunks:
            with suppress(SluiceError):
                work_chunk(context, run_id, planned.step, number)
    raise AssertionError(f"not at an end after {most_rounds} rounds")


def run_to_end(context: Context, run_key: str = "one") -> Run:
    """Open, work off and finish a run."""
    opened = open_run(context, run_key, {})
    work_off(context, opened.run.run_id)
    return finish_run(context, opened.run.run_id)


def applications(sql: Sql) -> dict[int, int]:
    """How many rows were applied how often."""
    return dict(sql('SELECT "applied", count(*) FROM public.visits GROUP BY 1'))


def ledger_is_sound(sql: Sql, run_id: int) -> None:
    """What must hold of every run at every moment: events add up, one done event a chunk and generation."""
    assert not sql(
        """
        SELECT chunk_no FROM sluice.chunk LEFT JOIN (
            SELECT step_no, chunk_no, sum(n) FILTER (WHERE event IN ('done', 'partial')) AS updated,
                   sum(n) FILTER (WHERE event = 'marked') AS marked
            FROM sluice.event WHERE run_id = %s GROUP BY 1, 2) AS total USING (step_no, chunk_no)
        WHERE run_id = %s AND (rows_updated <> coalesce(updated, 0) OR rows_marked <> coalesce(marked, 0))""",
        run_id,
        run_id,
    )
    assert not sql(
        "SELECT chunk_no FROM sluice.event WHERE run_id = %s AND event = 'done' "
        "GROUP BY step_no, chunk_no, generation HAVING count(*) > 1",
        run_id,
    )
    assert not sql(
        """SELECT "ID" FROM public.visits JOIN sluice.run ON "UpdatedDate" = run_ts
           WHERE run_id = %s AND "UpdateFlag" = 1""",
        run_id,
    )
