"""Databases with the pack's tables, empty or with generated data."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import cursor as Cursor

from infra.local.postgres import Postgres
from sql.packs.conflict_report.generate import Size, generate
from tests.packs.conflict_report.harness import create_tables

GENERATED_ROWS = 3000


@pytest.fixture
def cursor(database: str) -> Iterator[Cursor]:
    """A cursor on the pack's empty tables."""
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        create_tables(cursor)
        yield cursor


@pytest.fixture(scope="package")
def generated_database(postgres: Postgres) -> Iterator[str]:
    """DSN of a database with generated data, to be left as it is."""
    dsn = postgres.create_database("conflict_report_generated")
    generate(dsn, Size(GENERATED_ROWS))
    yield dsn
    postgres.drop_database("conflict_report_generated")


@pytest.fixture
def generated(generated_database: str) -> Iterator[Cursor]:
    """A cursor on generated data, rolled back after the test."""
    with closing(psycopg2.connect(generated_database)) as connection, connection.cursor() as cursor:
        yield cursor
