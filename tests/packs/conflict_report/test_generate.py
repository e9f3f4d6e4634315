"""The generator: the same data for the same size and seed, with everything in it that can go wrong."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from sql.packs.conflict_report.generate import CANARY, TABLES, Size, generate

Query = Callable[[str], list[tuple[Any, ...]]]


def digests(dsn: str) -> dict[str, str]:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        found = {}
        for table in TABLES:
            cursor.execute(f"SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM public.{table} AS t")
            (found[table],) = cursor.fetchone()
        return found


@pytest.fixture(scope="module")
def query(generated_database: str) -> Query:
    def run(text: str) -> list[tuple[Any, ...]]:
        with closing(psycopg2.connect(generated_database)) as connection, connection.cursor() as cursor:
            cursor.execute(text)
            return cursor.fetchall()

    return run


@pytest.mark.parametrize("rows", [1, 7, 640])
def test_exactly_as_many_rows_as_asked_for(database: str, rows: int) -> None:
    counts = generate(database, Size(rows))
    assert counts is not None
    assert counts["conflictvisitmaps"] == rows


def test_the_same_again_only_by_force_and_other_data_for_another_seed(database: str) -> None:
    assert generate(database, Size(200, seed=4)) is not None
    first = digests(database)
    with closing(psycopg2.connect(database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute('UPDATE public.conflictvisitmaps SET "UpdateFlag" = 1')
    assert generate(database, Size(200, seed=4)) is None
    assert digests(database) != first
    assert generate(database, Size(200, seed=4), force=True) is not None
    assert digests(database) == first
    assert generate(database, Size(200, seed=5)) is not None
    second = digests(database)
    assert [table for table in TABLES if first[table] == second[table]] == ["providers"]


def test_the_canary_is_the_busiest_person_and_changes_nothing_else(database: str) -> None:
    generate(database, Size(500))
    with closing(psycopg2.connect(database)) as connection, connection, connection.cursor() as cursor:
        busiest = 'SELECT "SSN" FROM public.conflictvisitmaps GROUP BY 1 ORDER BY count(*) DESC LIMIT 1'
        cursor.execute(busiest)
        (before,) = cursor.fetchone()
        cursor.execute('SELECT "ID" FROM public.conflictvisitmaps WHERE "SSN" = %s ORDER BY 1', (before,))
        rows = cursor.fetchall()
        connection.commit()
        assert generate(database, Size(500, canary=CANARY)) is not None
        cursor.execute(busiest)
        assert cursor.fetchone() == (CANARY,)
        cursor.execute('SELECT "ID" FROM public.conflictvisitmaps WHERE "SSN" = %s ORDER BY 1', (CANARY,))
        assert cursor.fetchall() == rows
        cursor.execute("SELECT obj_description('public.visits'::regclass)")
        assert CANARY not in cursor.fetchone()[0]


@pytest.mark.parametrize("ssn", ["123-45-6789", "900-70-0001", "987654329", ""])
def test_a_canary_that_could_be_a_persons_number_is_refused(ssn: str) -> None:
    with pytest.raises(ValueError, match="never issued"):
        Size(10, canary=ssn)


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Size(0)


def test_every_ssn_is_never_issued(query: Query) -> None:
    assert (
        query(
            'SELECT "SSN" FROM caregivers WHERE "SSN" !~ \'^9[0-9]{2}-[0-4][0-9]-[0-9]{4}$\' AND "SSN" <> \'unknown\''
        )
        == []
    )


@pytest.mark.parametrize(
    "condition",
    [
        '"SSN" IS NULL',
        '"VisitDate" IS NULL',
        '"VisitStartTime" IS NULL',
        '"VisitStartTime" IS NOT NULL AND "VisitEndTime" IS NULL',
        '"Latitude" IS NULL',
        '("SchStartTime" AT TIME ZONE \'UTC\')::date <> "VisitDate"',
        '"SchEndTime" > ("VisitDate" + 1)::timestamp AT TIME ZONE \'America/New_York\'',
        "\"VisitDate\" = '2025-03-09'",
        "\"VisitDate\" = '2025-11-02'",
        '"SchEndTime" - "SchStartTime" = interval \'1 day\'',
        '"SchStartTime" = "VisitStartTime" AND "SchEndTime" = "VisitEndTime"',
    ],
)
def test_the_awkward_rows_are_there(query: Query, condition: str) -> None:
    assert query(f"SELECT 1 FROM conflictvisitmaps WHERE {condition} LIMIT 1") == [(1,)]


def test_few_persons_have_many_visits(query: Query) -> None:
    counts = [
        n
        for (n,) in query(
            'SELECT count(*) FROM conflictvisitmaps WHERE "SSN" IS NOT NULL GROUP BY "SSN" ORDER BY 1 DESC'
        )
    ]
    assert counts[0] > 3 * sum(counts) / len(counts)
