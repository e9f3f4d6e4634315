"""What every test may ask for: a PostgreSQL server, and a database of its own in it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator

import pytest

from infra.local.postgres import Postgres, temporary_home

TEMPLATE_DATABASE = "template_sluice"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server a pytest process, thrown away at its end."""
    home = temporary_home()
    with Postgres.start(home, durable=False) as server:
        yield server
    shutil.rmtree(home)


@pytest.fixture(scope="session")
def template_database(postgres: Postgres) -> str:
    """Name of the database that every test's database is a copy of."""
    postgres.create_database(TEMPLATE_DATABASE)
    return TEMPLATE_DATABASE


@pytest.fixture
def database(postgres: Postgres, template_database: str) -> Iterator[str]:
    """DSN of an empty database of this test alone."""
    name = f"test_{next(_numbers)}"
    yield postgres.create_database(name, template=template_database)
    postgres.drop_database(name)
