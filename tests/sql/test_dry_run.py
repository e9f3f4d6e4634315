"""The dry run says what a run would do and leaves everything as it was (I22)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.context import Context
from sluice.dry_run import plan
from sluice.errors import BadInputError
from tests.sql.conftest import SCHEMA
from tests.sql.harness import VISITS, Sql, run_to_end

Contexts = Callable[..., Context]


@pytest.fixture
def visits(sql_: Sql) -> Sql:
    sql_(SCHEMA)
    sql_(VISITS, 2000)
    sql_("ANALYZE public.visits")
    return sql_


def picture(sql: Sql) -> list[tuple[object, ...]]:
    return [
        *sql("SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'sluice') ORDER BY 1, 2"),
        *sql('SELECT xmin::text, ctid::text, visits::text FROM public.visits ORDER BY "ID"'),
    ]


def test_i22_a_dry_run_changes_nothing(visits: Sql, pack: Path, context_of: Contexts) -> None:
    job = pack / "demo.job.yaml"
    job.write_text(job.read_text().replace("steps:", "steps:\n  - {name: make, kind: sql, file: make.sql}"))
    (pack / "make.sql").write_text("CREATE TABLE public.made AS SELECT 1 AS one;\nDELETE FROM public.visits")
    before = picture(visits)
    (made, _) = plan(context_of(), {})["steps"]
    assert made["rows"] == 2001
    assert picture(visits) == before


def test_what_it_says_is_what_a_run_then_does(visits: Sql, context_of: Contexts) -> None:
    (step,) = plan(context_of(), {})["steps"]
    run = run_to_end(context_of())
    assert visits("SELECT count(*), sum(est_rows) FROM sluice.chunk WHERE run_id = %s", run.run_id) == [
        (step["chunks"], step["rows"])
    ]
    assert visits("SELECT sum(groups) FROM sluice.chunk") == [(step["groups"],)]
    assert [phase["name"] for phase in step["phases"]] == ["mark", "apply"]
    assert all(phase["rows"] > 0 and phase["wal_bytes"] > 0 and phase["plan"] for phase in step["phases"])


def test_a_plan_that_reads_the_whole_table_for_a_chunk_is_a_warning(visits: Sql, context_of: Contexts) -> None:
    assert not any("the plan reads" in warning for warning in plan(context_of(), {})["steps"][0]["warnings"])
    visits('DROP INDEX public."visits_VisitDate_SSN_idx"')
    visits(VISITS.replace("generate_series(1, %s)", "generate_series(2001, %s)"), 60_000)
    visits("ANALYZE public.visits")
    warnings = plan(context_of(), {})["steps"][0]["warnings"]
    assert any("no index of public.visits starts with" in warning for warning in warnings)
    assert any("the plan reads all of visits for each chunk" in warning for warning in warnings)


def test_a_key_group_above_the_maximum_is_reported(visits: Sql, context_of: Contexts) -> None:
    visits("""INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
              SELECT 10000 + n, '2025-01-03', '900-00-0001', 7 FROM generate_series(1, 150) AS n""")
    step = plan(context_of(), {})["steps"][0]
    assert (step["oversized_groups"], step["largest_group"] > 150) == (1, True)
    assert any("key groups of more than 100 rows, each one chunk: 1" in warning for warning in step["warnings"])
    assert any("rows have a NULL in their key and are one chunk" in warning for warning in step["warnings"])


def test_nothing_in_it_is_a_key(visits: Sql, context_of: Contexts) -> None:
    text = json.dumps(plan(context_of(), {}))
    assert "900-00" not in text and "2025-01-0" not in text


def test_it_refuses_what_a_run_would_refuse(visits: Sql, pack: Path, context_of: Contexts) -> None:
    (pack / "double.sql").write_text("SELECT chunk.row_id, 1 AS nothing FROM chunk")
    with pytest.raises(BadInputError, match="no such column"):
        plan(context_of(), {})
