"""Runs the pack's SQL without the engine, in the forms that the engine gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg2.extensions import cursor as Cursor

from sluice.sqltext import read_queries, single_statement, to_driver

PACK = Path(__file__).parents[3] / "sql" / "packs" / "conflict_report"
RUN_TS = datetime(2025, 5, 4, 3, 2, 1, tzinfo=UTC)
PARAMETERS: Mapping[str, object] = {
    "since": "2025-01-01", "travel_mph": 30, "travel_window_minutes": 120, "run_ts": RUN_TS, "run_id": 1,
}  # fmt: skip
SELECT = single_statement((PACK / "02_update_conflicts.sql").read_text(encoding="utf-8"))
WHOLE = "SELECT t.*, t.ctid AS row_id FROM public.conflictvisitmaps AS t"
BY_ADDRESS = (
    "SELECT t.*, t.ctid AS row_id FROM unnest(:addresses::tid[]) AS p(row_id)"
    " JOIN public.conflictvisitmaps AS t ON t.ctid = p.row_id"
)


def create_tables(cursor: Cursor) -> None:
    cursor.execute((PACK / "schema.sql").read_text(encoding="utf-8"))


def copy_to_temp(cursor: Cursor, **parameters: object) -> None:
    for query in read_queries(PACK / "01_copy_to_temp.sql").values():
        cursor.execute(to_driver(query.sql), {**PARAMETERS, **parameters})


def compute(cursor: Cursor, addresses: Sequence[str] | None = None, **parameters: object) -> list[dict[str, Any]]:
    """The SELECT over all rows or the rows at these addresses; each row by column name, with its row_id."""
    values = {**PARAMETERS, **parameters, "addresses": addresses}
    cursor.execute(
        to_driver(f"WITH chunk AS MATERIALIZED ({chunk(addresses)}) {tail('SELECT * FROM ({}) AS new')}"), values
    )
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def columns(cursor: Cursor) -> list[str]:
    """The columns that the SELECT sets, in its order."""
    cursor.execute(to_driver(f"WITH chunk AS ({WHOLE}) {tail('SELECT * FROM ({}) AS new LIMIT 0')}"), PARAMETERS)
    row_id, *names = (column.name for column in cursor.description)
    assert row_id == "row_id"
    return names


def update(cursor: Cursor, addresses: Sequence[str] | None = None) -> int:
    """The UPDATE that applies the SELECT; returns the number of rows."""
    assignments = ", ".join(f'"{name}" = new."{name}"' for name in columns(cursor))
    statement = (
        f"WITH chunk AS MATERIALIZED ({chunk(addresses)}) "
        f'UPDATE public.conflictvisitmaps AS t SET {assignments}, "UpdateFlag" = NULL, "UpdatedDate" = :run_ts'
        f" FROM ({SELECT}) AS new WHERE t.ctid = new.row_id"
    )
    cursor.execute(to_driver(statement), {**PARAMETERS, "addresses": addresses})
    return int(cursor.rowcount)


def check(cursor: Cursor) -> dict[str, list[Any]]:
    """Offending keys by the name of the check, of the checks that found any."""
    found = {}
    for query in read_queries(PACK / "03_expect.sql").values():
        cursor.execute(to_driver(query.sql), PARAMETERS)
        if rows := cursor.fetchall():
            found[query.name] = [row[0] for row in rows]
    return found


def chunk(addresses: Sequence[str] | None) -> str:
    return WHOLE if addresses is None else BY_ADDRESS


def tail(form: str) -> str:
    return form.format(SELECT)


def by_visit(cursor: Cursor, found: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Results of the SELECT by VisitID; every conflict row exactly once."""
    cursor.execute('SELECT ctid::text, "VisitID" FROM public.conflictvisitmaps')
    visit_at = dict(cursor.fetchall())
    assert sorted(row["row_id"] for row in found) == sorted(visit_at)
    return {visit_at[row["row_id"]]: {k: v for k, v in row.items() if k != "row_id"} for row in found}
