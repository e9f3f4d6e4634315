"""A small pack over a small table, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from sluice.context import Context
from sluice.databases.postgres import Postgres
from sluice.deadline import Deadline
from sluice.job_file import read_job
from tests.connections import facts_of

SCHEMA = """
CREATE TABLE public.visits (
    "ID" bigint PRIMARY KEY, "VisitDate" date, "SSN" text, "Minutes" integer NOT NULL,
    "Doubled" integer, "applied" integer NOT NULL DEFAULT 0, "UpdateFlag" smallint, "UpdatedDate" timestamptz);
CREATE INDEX ON public.visits ("VisitDate", "SSN");
"""
SELECT = 'SELECT chunk.row_id, chunk."Minutes" * 2 AS "Doubled", chunk."applied" + 1 AS "applied" FROM chunk'
JOB = """
job: demo
connections:
  target: {secret: sluice/target}
params:
  factor: {type: integer, default: 2}
steps:
  - name: double
    kind: update
    file: double.sql
    target: public.visits
    key: [VisitDate, SSN]
    flag: UpdateFlag
    stamp: UpdatedDate
    chunk: {target_rows: 50, max_rows: 100}
"""


@pytest.fixture
def sql_(database: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    """Runs a statement in a session of its own, committed; gives its rows."""
    connection = psycopg2.connect(database)
    connection.autocommit = True

    def run(statement: str, *values: object) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    yield run
    connection.close()


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A folder with the job `demo`."""
    folder = tmp_path / "packs" / "demo"
    folder.mkdir(parents=True)
    (folder / "demo.job.yaml").write_text(JOB)
    (folder / "double.sql").write_text(SELECT)
    return folder


@pytest.fixture
def context_of(database: str, pack: Path) -> Iterator[Callable[..., Context]]:
    """Makes contexts over the pack, each with a connection of its own."""
    opened: list[Postgres] = []

    def make(deadline: Deadline | None = None) -> Context:
        opened.append(Postgres(lambda force: facts_of(database)))
        return Context(read_job(pack / "demo.job.yaml"), opened[-1], deadline or Deadline())

    yield make
    for connection in opened:
        connection.close()
