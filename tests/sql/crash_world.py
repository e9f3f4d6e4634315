"""A small database that is put back to any earlier moment in milliseconds, and what must hold in it."""

from __future__ import annotations

import time
from pathlib import Path

import psycopg2
from psycopg2 import sql

from sluice.context import Context
from sluice.job import Job
from sluice.job_file import read_job
from sluice.ledger import migrate, queries
from sluice.sqltext import to_driver
from sluice.steps import update_target
from tests.sql.conftest import SCHEMA
from tests.sql.faults import Watch, WatchedPostgres
from tests.sql.harness import Sql, ledger_is_sound

ROWS = 60
VISITS = """
INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
SELECT n, CASE WHEN n % 11 > 0 THEN date '2025-01-01' + n % 3 END,
       CASE WHEN n % 13 > 0 THEN '900-00-' || lpad((n % 7)::text, 4, '0') END, n % 50
FROM generate_series(1, 60) AS n
"""
# Counts whoever sets the column, also where the value and the stamp stay what they were.
COUNTING = """
CREATE TABLE public.journal ("ID" bigint);
CREATE FUNCTION public.count_application() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN NEW."applied" := OLD."applied" + 1; RETURN NEW; END $$;
CREATE TRIGGER count_application BEFORE UPDATE OF "Doubled" ON public.visits
  FOR EACH ROW EXECUTE FUNCTION public.count_application();
"""
HEAD = """
job: demo
connections:
  target: {secret: sluice/target}
steps:"""
PREPARE = """
  - name: prepare
    kind: sql
    file: prepare.sql"""
DOUBLE = """
  - name: double
    kind: update
    file: double.sql
    target: public.visits
    key: [VisitDate, SSN]
    flag: UpdateFlag
    stamp: UpdatedDate
    mark: MODE
    late_rows: LATE
    chunk: {target_rows: 20, max_rows: 30}"""
EXPECT = """
  - name: expect
    kind: check
    file: expect.sql
    definition_of: double
"""
FILES = {
    "prepare.sql": 'INSERT INTO public.journal SELECT "ID" FROM public.visits',
    "double.sql": 'SELECT chunk.row_id, chunk."Minutes" * 2 AS "Doubled" FROM chunk',
    "expect.sql": (
        "-- no_flag_left\n-- no row keeps its flag after the step\n"
        'SELECT "ID" FROM public.visits WHERE "UpdateFlag" = 1\n'
    ),
}


def ignore(*_: object) -> None:
    """Watches nothing."""


class World:
    """A database, a job over it, and a saved moment of both."""

    job: Job
    mode: str

    def __init__(self, dsn: str, folder: Path) -> None:
        self.dsn = dsn
        self._folder = folder
        self._jobs: dict[tuple[str, str, bool], Job] = {}
        self._session = psycopg2.connect(dsn)
        self._session.autocommit = True
        self._contexts: list[WatchedPostgres] = []
        self._restore = ""
        self.sql(SCHEMA + COUNTING)

    def begin(self, mode: str, *, late: str = "sweep", all_kinds: bool = False, with_ledger: bool = True) -> None:
        """Forget everything and take the job with that mark, of an update alone or of a step of each kind."""
        self.hang_up()
        self.mode = mode
        self.job = self._jobs.setdefault((mode, late, all_kinds), self._read_job(mode, late, all_kinds))
        self.sql("DELETE FROM public.visits; DELETE FROM public.journal")
        self.sql(VISITS)
        if not with_ledger:
            self.sql("DROP SCHEMA IF EXISTS sluice CASCADE")
            return
        with self.context().transaction() as transaction:
            migrate(transaction)
        self.sql("DELETE FROM sluice.run")

    def _read_job(self, mode: str, late: str, all_kinds: bool) -> Job:
        folder = self._folder / f"{mode}_{late}_{all_kinds}" / "demo"
        folder.mkdir(parents=True, exist_ok=True)
        steps = PREPARE + DOUBLE + EXPECT if all_kinds else DOUBLE
        (folder / "demo.job.yaml").write_text(HEAD + steps.replace("MODE", mode).replace("LATE", late))
        for name, text in FILES.items():
            (folder / name).write_text(text)
        return read_job(folder / "demo.job.yaml")

    def sql(self, statement: str | sql.Composable, *values: object) -> list[tuple[object, ...]]:
        """Run statements in a session of the world's own, committed; gives the rows of the last one."""
        with self._session.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def named(self, statement: str | sql.Composable, **values: object) -> list[tuple[object, ...]]:
        """Like `sql`, with values by name."""
        with self._session.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall()

    def context(self, watch: Watch = ignore) -> Context:
        """The job with a connection of its own; a watched one is in a process that knows nothing yet."""
        if watch is not ignore:
            update_target.known.clear()
        self._contexts.append(WatchedPostgres(self.dsn, watch))
        return Context(self.job, self._contexts[-1])

    def close(self) -> None:
        """End every session but those that died."""
        self.hang_up()
        self._session.close()

    def hang_up(self) -> None:
        """End the sessions of the contexts, and wait until the server has noticed the end of every one."""
        self.close_contexts()
        others = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        end = time.monotonic() + 30
        while self.sql(others):
            assert time.monotonic() < end, "a session outlives its client"
            time.sleep(0.001)

    def close_contexts(self) -> None:
        """End the sessions of the contexts."""
        while self._contexts:
            self._contexts.pop().close()

    def tables(self) -> list[sql.Identifier]:
        return [
            sql.Identifier(*names)
            for names in self.sql(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('sluice', 'public') ORDER BY 1, 2"
            )
        ]

    def digest(self) -> str:
        """What is committed, in data and ledger, as one value; times and names of sessions left out."""
        one = sql.SQL("SELECT {} || (to_jsonb(t) - %(volatile)s::text[])::text AS line FROM {} AS t")
        lines = sql.SQL(" UNION ALL ").join(
            one.format(sql.Literal(".".join(table.strings)), table) for table in self.tables()
        )
        statement = sql.SQL("SELECT md5(string_agg(line, chr(10) ORDER BY line)) FROM ({}) AS lines").format(lines)
        return str(self.named(statement, volatile=VOLATILE)[0][0])

    def save(self) -> None:
        """Keep this moment for `restore`."""
        self.hang_up()
        self.sql("DROP SCHEMA IF EXISTS saved CASCADE; CREATE SCHEMA saved")
        back = [sql.SQL("SET session_replication_role = replica")]
        if not self.has_ledger():
            back.append(sql.SQL("DROP SCHEMA IF EXISTS sluice CASCADE"))
        for table in self.tables():
            kept = sql.Identifier("saved", "_".join(table.strings))
            self.sql(sql.SQL("CREATE TABLE {} AS TABLE {}").format(kept, table))
            back.append(sql.SQL("DELETE FROM {}").format(table))
            back.append(sql.SQL("INSERT INTO {} OVERRIDING SYSTEM VALUE TABLE {}").format(table, kept))
        back.append(sql.SQL("SET session_replication_role = origin"))
        self._restore = sql.SQL("; ").join(back).as_string(self._session)

    def restore(self) -> None:
        """Go back to the saved moment."""
        self.hang_up()
        self.sql(self._restore)

    def has_ledger(self) -> bool:
        return self.sql("SELECT to_regclass('sluice.run') IS NOT NULL") == [(True,)]

    def broken_invariants(self, run_id: int) -> list[tuple[object, ...]]:
        """What the engine itself asks before it calls a run a success."""
        return self.named(to_driver(queries()["broken_invariants"]), run_id=run_id)

    def run_id(self) -> int | None:
        """The number of the run, where there is one."""
        if not self.has_ledger():
            return None
        found = self.sql("SELECT run_id FROM sluice.run")
        return int(str(found[0][0])) if found else None


# What differs from one life of the same database to the next: moments, sessions, random numbers.
VOLATILE = [
    "run_ts", "opened_at", "finished_at", "changed_at", "held_since", "started_at", "done_at", "checked_at",
    "applied_at", "ended_at", "cancelled_at", "lease_until", "backend_start", "at", "attempt_id",
    "event_id", "pid", "UpdatedDate",
]  # fmt: skip

BALANCE = """
WITH target AS (
    SELECT coalesce(sum("applied"), 0) AS applied, count(*) FILTER (WHERE "UpdateFlag" = 1) AS flagged,
           count(*) FILTER (WHERE "UpdatedDate" = (SELECT run_ts FROM sluice.run)) AS stamped
    FROM public.visits
), chunk AS (
    SELECT coalesce(sum(rows_updated) FILTER (WHERE kind = 'update'), 0) AS updated,
           coalesce(sum(rows_marked), 0) AS marked,
           count(*) FILTER (WHERE kind = 'sql' AND state = 'done') AS sql_done,
           count(*) FILTER (WHERE kind = 'check' AND state = 'done') AS checks_done
    FROM sluice.chunk JOIN sluice.step USING (run_id, step_no)
)
SELECT applied, stamped, updated, marked, flagged, sql_done, checks_done,
       (SELECT coalesce(sum(n), 0) FROM sluice.event WHERE event = 'flags_cleared') AS cleared,
       (SELECT count(*) FROM public.journal) AS journal,
       (SELECT count(*) FROM sluice.finding) AS findings,
       (SELECT count(*) FROM sluice.event WHERE event = 'reopened') AS reopened
FROM target, chunk
"""


def is_balanced(world: World) -> None:
    """I16 and the sums: what the data shows is what the ledger says, at every moment."""
    run_id = world.run_id()
    if run_id is None:
        assert world.sql('SELECT count(*) FROM public.visits WHERE "applied" > 0 OR "UpdateFlag" = 1') == [(0,)]
        return
    (row,) = world.sql(BALANCE)
    applied, stamped, updated, marked, flagged, sql_done, checks_done, cleared, journal, findings, reopened = row
    assert applied == stamped == updated, f"I16: {applied=} {stamped=} {updated=}"
    if world.mode == "fused":
        assert (marked, flagged) == (0, 0)
    else:
        assert marked == updated + cleared + flagged, f"I8: {marked=} {updated=} {cleared=} {flagged=}"  # type: ignore[operator]
    assert journal == ROWS * sql_done, f"I16: {journal=} {sql_done=}"
    assert findings == checks_done or reopened, f"I16: {findings=} {checks_done=}"
    as_sql: Sql = world.sql  # type: ignore[assignment]
    ledger_is_sound(as_sql, run_id)
    assert world.broken_invariants(run_id) == []
