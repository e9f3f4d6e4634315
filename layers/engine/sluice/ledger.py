"""The ledger: its named SQL, its migrations and the rows that the engine reads from it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from psycopg2 import sql

from sluice.databases.postgres import Transaction
from sluice.errors import BadInputError, ChunkBusyError, LedgerError
from sluice.settings import settings
from sluice.sqltext import read_queries, to_driver

MIGRATION_FILE = re.compile(r"^(\d{4})_([a-z0-9_]+)\.sql$")
FINAL_STATES = ("succeeded", "succeeded_with_drift", "failed", "cancelled")


def ledger_folder() -> Path:
    return settings().sql_root / "ledger" / "postgres"


@lru_cache(maxsize=1)
def queries() -> Mapping[str, str]:
    """Every named statement of the ledger's files."""
    found: dict[str, str] = {}
    for path in sorted(ledger_folder().glob("*.sql")):
        for query in read_queries(path).values():
            if query.name in found:
                raise LedgerError(f"two ledger queries are called '{query.name}'")
            found[query.name] = query.sql
    return found


def template(name: str, **parts: sql.Composable) -> sql.Composed:
    """A named statement with its `{parts}` filled in by the driver's own quoting."""
    return sql.SQL(to_driver(queries()[name])).format(**parts)


@dataclass(frozen=True)
class Run:
    """A row of sluice.run with what the operator wants of it."""

    run_id: int
    job: str
    run_key: str
    run_ts: datetime
    generation: int
    params: Mapping[str, Any]
    job_sha256: str
    state: str
    desired: str
    reason: str | None
    opened_at: datetime
    finished_at: datetime | None
    error_code: str | None
    error: str | None
    report: str | None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL_STATES


@dataclass(frozen=True)
class StepRow:
    """A row of sluice.step."""

    run_id: int
    step_no: int
    name: str
    kind: str
    target: str | None
    flag: str | None
    wave: int
    phase: str
    rounds: int
    planned_rows: int
    late_rows: int
    drift_rows: int
    held: str | None
    started_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True)
class ChunkRow:
    """A chunk as its lock found it, with the run's generation and what the operator wants."""

    generation: int
    run_state: str
    run_ts: datetime
    desired: str
    phase: str
    state: str
    lo: list[str] | None
    hi: list[str] | None
    is_null: bool
    wave: int
    rounds: int
    est_rows: int
    rows_marked: int
    rows_updated: int


class Ledger:
    """The ledger's statements inside one transaction, called by their names."""

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction

    def execute(self, name: str, /, **values: object) -> int:
        """Run a named statement; gives the number of rows it touched."""
        return self.transaction.execute(queries()[name], values)

    def row(self, name: str, /, **values: object) -> Any:
        """The first row of a named query, None where there is none."""
        return self.transaction.row(queries()[name], values)

    def rows(self, name: str, /, **values: object) -> list[Any]:
        """All rows of a named query."""
        return self.transaction.rows(queries()[name], values)

    def run(self, run_id: int) -> Run:
        """The run of that number; raises BadInputError where there is none."""
        row = self.row("read_run", run_id=run_id)
        if row is None:
            raise BadInputError(f"there is no run {run_id}")
        return Run(**row._asdict())

    def steps(self, run_id: int) -> list[StepRow]:
        """The run's steps in order."""
        return [StepRow(**row._asdict()) for row in self.rows("read_steps", run_id=run_id)]

    def step(self, run_id: int, name: str) -> StepRow:
        """The run's step of that name; raises LedgerError where there is none."""
        row = self.row("read_step", run_id=run_id, name=name)
        if row is None:
            raise LedgerError(f"run {run_id} has no step '{name}'")
        return StepRow(**row._asdict())

    def lock_chunk(self, run_id: int, step_no: int, chunk_no: int) -> ChunkRow:
        """Lock the run's row (shared) and the chunk's.

        Raises ChunkBusyError where another attempt holds the chunk, LedgerError where there is no such chunk.
        """
        try:
            row = self.row("lock_chunk", run_id=run_id, step_no=step_no, chunk_no=chunk_no)
        except ChunkBusyError as error:
            raise ChunkBusyError(f"another attempt holds chunk {chunk_no}", **error.facts, held="chunk") from None
        if row is None:
            raise LedgerError(f"run {run_id} has no chunk {chunk_no} in step {step_no}")
        return ChunkRow(**row._asdict())

    def event(
        self,
        run_id: int,
        event: str,
        *,
        step_no: int | None = None,
        chunk_no: int | None = None,
        n: int = 0,
        detail: str = "",
    ) -> None:
        """Append an event."""
        self.execute(
            "add_event", run_id=run_id, step_no=step_no, chunk_no=chunk_no, event=event, n=n, detail=detail or None
        )


@dataclass(frozen=True)
class Migration:
    """One numbered change of the ledger's schema."""

    version: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


@lru_cache(maxsize=1)
def migrations() -> tuple[Migration, ...]:
    """The ledger's migrations in order; raises LedgerError for a file name or number that does not fit."""
    found = []
    for number, path in enumerate(sorted((ledger_folder() / "migrations").glob("*")), start=1):
        match = MIGRATION_FILE.match(path.name)
        if match is None or int(match[1]) != number:
            raise LedgerError(f"{path}: migrations are called 0001_name.sql, 0002_name.sql, …")
        found.append(Migration(number, match[2], path.read_text(encoding="utf-8")))
    return tuple(found)


def is_current(transaction: Transaction) -> bool:
    """Whether the database has every migration of this version of Sluice."""
    ledger = Ledger(transaction)
    if not ledger.row("has_migrations").there:
        return False
    applied = ledger.rows("applied_migrations")
    if len(applied) > len(migrations()):
        raise BadInputError(
            f"the ledger has version {applied[-1].version}, this Sluice knows {len(migrations())}: deploy the newer one"
        )
    for row, migration in zip(applied, migrations(), strict=False):
        if row.sha256 != migration.sha256:
            raise LedgerError(f"migration {row.version} ({row.name}) was changed after it was applied")
    return len(applied) == len(migrations())


def migrate(transaction: Transaction) -> list[str]:
    """Bring the ledger's schema up to date; gives the names of what was applied.

    Safe to call at once from anywhere: one transaction waits for the other.
    """
    if is_current(transaction):
        return []
    ledger = Ledger(transaction)
    ledger.execute("create_schema")
    applied = {row.version for row in ledger.rows("applied_migrations")}
    new = [migration for migration in migrations() if migration.version not in applied]
    for migration in new:
        transaction.execute(migration.text)
        ledger.execute("record_migration", version=migration.version, name=migration.name, sha256=migration.sha256)
    return [migration.name for migration in new]


def as_json(value: object) -> str:
    """The JSON text that the ledger keeps."""
    return json.dumps(value, separators=(",", ":"))
