"""What does not fit is refused in one line, and the database stays as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sluice.context import Context
from sluice.databases.postgres import Connections, Postgres
from sluice.errors import BadInputError, DatabaseUnavailableError
from sluice.job_file import read_job
from sluice.run import open_run
from tests.connections import facts_of
from tests.sql.conftest import SCHEMA
from tests.sql.harness import VISITS, Sql

Contexts = Callable[..., Context]


@pytest.fixture
def visits(sql_: Sql) -> Sql:
    sql_(SCHEMA)
    sql_(VISITS, 200)
    return sql_


def picture(sql: Sql) -> list[tuple[object, ...]]:
    """Everything that a refused run might have changed."""
    tables = sql("SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('public', 'sluice') ORDER BY 1, 2")
    rows = sql('SELECT xmin::text, ctid::text, visits::text FROM public.visits ORDER BY "ID"') if tables else []
    return [*tables, *rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('ALTER TABLE public.visits DROP COLUMN "SSN"', 'key: public.visits has no column "SSN"'),
        ('ALTER TABLE public.visits DROP COLUMN "UpdateFlag"', 'flag: public.visits has no column "UpdateFlag"'),
        ('ALTER TABLE public.visits DROP COLUMN "UpdatedDate"', 'stamp: public.visits has no column "UpdatedDate"'),
        (
            'ALTER TABLE public.visits ALTER "UpdateFlag" TYPE text',
            'flag: "UpdateFlag" is text, it must be an integer type',
        ),
        (
            'UPDATE public.visits SET "UpdateFlag" = 0; ALTER TABLE public.visits ALTER "UpdateFlag" SET NOT NULL',
            'flag: "UpdateFlag" is NOT NULL, a free row has NULL there',
        ),
        (
            'ALTER TABLE public.visits ALTER "UpdatedDate" TYPE timestamptz(0)',
            'stamp: "UpdatedDate" is timestamp(0) with time zone',
        ),
        ('ALTER TABLE public.visits ALTER "UpdatedDate" TYPE date', 'stamp: "UpdatedDate" is date'),
        ("ALTER TABLE public.visits ADD row_id integer", "public.visits has a column row_id"),
    ],
)
def test_a_target_that_does_not_fit(visits: Sql, context_of: Contexts, change: str, message: str) -> None:
    visits(change)
    before = picture(visits)
    with pytest.raises(BadInputError) as caught:
        open_run(context_of(), "one", {})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert picture(visits) == before


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ('SELECT chunk.row_id, 1 AS "Doubled" FROM chunk WHERE', "double.sql: syntax error"),
        ('SELECT chunk.row_id, chunk."Minuten" AS "Doubled" FROM chunk', "column chunk.Minuten does not exist"),
        ('SELECT 1 AS "Doubled" FROM chunk', "must return chunk.row_id as its first column"),
        ("SELECT chunk.row_id FROM chunk", "the SELECT sets no column"),
        ('SELECT chunk.row_id, 1 AS "Tripled" FROM chunk', '"Tripled", public.visits has no such column'),
        ('SELECT chunk.row_id, 1 AS "UpdateFlag" FROM chunk', '"UpdateFlag", which belongs to the engine'),
        ('SELECT chunk.row_id, now() AS "UpdatedDate" FROM chunk', '"UpdatedDate", which belongs to the engine'),
        ('SELECT chunk.row_id, 1 AS "Doubled", 2 AS "Doubled" FROM chunk', 'returns "Doubled" twice'),
        ('SELECT chunk.row_id, \'x\' || chunk."ID" AS "Doubled" FROM chunk', "is of type integer but expression"),
    ],
)
def test_a_select_that_does_not_fit(visits: Sql, pack: Path, context_of: Contexts, select: str, message: str) -> None:
    (pack / "double.sql").write_text(select)
    before = picture(visits)
    with pytest.raises(BadInputError) as caught:
        open_run(context_of(), "one", {})
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert "double.sql" in str(caught.value)
    assert picture(visits) == before


def test_a_table_that_is_not_there(sql_: Sql, context_of: Contexts) -> None:
    with pytest.raises(BadInputError, match="step 'double': there is no table public.visits"):
        open_run(context_of(), "one", {})
    assert sql_("SELECT to_regnamespace('sluice')") == [(None,)]


def test_a_target_without_an_index_on_its_key_is_a_warning(visits: Sql, context_of: Contexts) -> None:
    visits('DROP INDEX public."visits_VisitDate_SSN_idx"')
    assert open_run(context_of(), "one", {}).warnings == [
        'step \'double\': no index of public.visits starts with ("VisitDate", "SSN"): every chunk will scan the table'
    ]


@pytest.mark.parametrize(
    ("grants", "message"),
    [
        ("SELECT", 'lacks UPDATE on public.visits."UpdatedDate"'),
        (
            'SELECT, UPDATE ("UpdatedDate", "UpdateFlag")',
            'double.sql: this user lacks UPDATE on public.visits."Doubled"',
        ),
    ],
)
def test_a_user_without_the_privileges(visits: Sql, pack: Path, database: str, grants: str, message: str) -> None:
    visits("DROP ROLE IF EXISTS narrow")
    visits("CREATE ROLE narrow LOGIN PASSWORD 'narrow'")
    visits(
        f"GRANT CREATE ON DATABASE {facts_of(database)['dbname']} TO narrow; GRANT {grants} ON public.visits TO narrow"
    )
    connection = Postgres(lambda force: {**facts_of(database), "username": "narrow", "password": "narrow"})
    try:
        with pytest.raises(BadInputError) as caught:
            open_run(Context(read_job(pack / "demo.job.yaml"), connection), "one", {})
    finally:
        connection.close()
        visits("DROP OWNED BY narrow; DROP ROLE narrow")
    assert message in str(caught.value)


def test_a_later_step_may_read_what_an_earlier_one_makes(visits: Sql, pack: Path, context_of: Contexts) -> None:
    job = pack / "demo.job.yaml"
    job.write_text(job.read_text().replace("steps:", "steps:\n  - {name: make, kind: sql, file: make.sql}"))
    (pack / "make.sql").write_text("CREATE TABLE public.factor AS SELECT 2 AS factor")
    (pack / "double.sql").write_text('SELECT chunk.row_id, "Minutes" * factor AS "Doubled" FROM chunk, public.factor')
    assert open_run(context_of(), "one", {}).run.state == "running"


SECRET = {"host": "127.0.0.1", "port": 1, "username": "u", "password": "hidden", "dbname": "d", "sslmode": "disable"}


@pytest.mark.parametrize(
    ("secret", "error", "message"),
    [
        ("not json", BadInputError, "secret 'sluice/target' is not JSON"),
        (json.dumps({"host": "h", "username": "u"}), BadInputError, "secret 'sluice/target' lacks password, dbname"),
        (json.dumps(SECRET), DatabaseUnavailableError, "cannot connect to 127.0.0.1:1/d as u: "),
        (json.dumps({**SECRET, "host": "no-such-host.invalid"}), BadInputError, "there is no such host"),
    ],
)
def test_a_connection_that_cannot_be_made(pack: Path, secret: str, error: type[Exception], message: str) -> None:
    database = Connections(lambda name, force: secret).get("sluice/target")
    with pytest.raises(error) as caught:
        open_run(Context(read_job(pack / "demo.job.yaml"), database), "one", {})
    assert message in str(caught.value) and "hidden" not in str(caught.value)


def test_a_rotated_password_is_read_anew_once(visits: Sql, pack: Path, database: str) -> None:
    asked: list[bool] = []

    def facts(force: bool) -> dict[str, object]:
        asked.append(force)
        return {**facts_of(database), **({} if force else {"password": "of yesterday"})}

    connection = Postgres(facts)
    assert open_run(Context(read_job(pack / "demo.job.yaml"), connection), "one", {}).run.state == "running"
    connection.close()
    assert asked == [False, True]


def test_a_wrong_password_is_the_users_mistake(pack: Path, database: str) -> None:
    connection = Postgres(lambda force: {**facts_of(database), "password": "wrong"})
    with pytest.raises(BadInputError, match="the password was refused"):
        open_run(Context(read_job(pack / "demo.job.yaml"), connection), "one", {})
