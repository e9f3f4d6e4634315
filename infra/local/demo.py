"""`make demo`: the conflict report from nothing to its result, on this machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psycopg2
from psycopg2.extras import NamedTupleCursor

from infra.local.errors import LocalStackError
from infra.local.stack import LocalStack
from infra.local.supervisor import Files

REPOSITORY = Path(__file__).resolve().parents[2]
PACK = REPOSITORY / "sql" / "packs" / "conflict_report"
JOB = "conflict_report/conflict_report"
INTERRUPTED = 130


class DataError(LocalStackError):
    """The visits data could not be made."""


class Stack(NamedTuple):
    """A stack to work with: the variables of its shell and where its reports go."""

    env: dict[str, str]
    reports: Path


def demo(data_dir: Path, rows: int) -> int:
    """Make the data, run the job through Step Functions, show what became of it; gives the exit code.

    A stack that is up is used and left up; otherwise one is started and ended. A run that was interrupted is resumed.
    """
    with running_stack(data_dir) as stack:
        dsn = stack.env["SLUICE_DSN"]
        make_data(dsn, rows)
        key = next_key(dsn)
        sluice = [str(Path(sys.executable).with_name("sluice"))]
        environment = {**os.environ, **stack.env}
        try:
            ended = subprocess.run([*sluice, "run", JOB, "--run-key", key], env=environment, check=False)
        except KeyboardInterrupt:
            print("\nStopping. The next `make demo` goes on with this run.", flush=True)
            return INTERRUPTED
        report = fetch_report(sluice, environment, stack.reports, key)
        print("\n".join(result_lines(dsn, key, report)))
        return ended.returncode


@contextmanager
def running_stack(data_dir: Path) -> Iterator[Stack]:
    """The stack that is up, else one for the length of the block."""
    files = Files(data_dir)
    if files.is_locked():
        files.running()
        words = (word.partition("=") for word in shlex.split(files.env.read_text()))
        yield Stack({name: value for name, equals, value in words if equals and name != "PATH"}, data_dir / "reports")
        return
    print("Starting PostgreSQL, Lambda and Step Functions on this machine …", flush=True)
    with LocalStack(data_dir=data_dir) as stack:
        yield Stack(stack.env(), data_dir / "reports")


def make_data(dsn: str, rows: int) -> None:
    """The visits of the demo; what is there already is kept."""
    print(f"Making {rows:,} rows that may conflict (kept for the next time) …", flush=True)
    arguments = [sys.executable, str(PACK / "generate.py"), "--dsn", dsn, "--rows", str(rows)]
    if subprocess.run(arguments, stdout=subprocess.DEVNULL, check=False).returncode:
        raise DataError


def next_key(dsn: str) -> str:
    """The key of the run that is not at its end, else the next number."""
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('sluice.run')")
        if cursor.fetchone() == (None,):
            return "demo-1"
        cursor.execute((REPOSITORY / "infra" / "local" / "demo.sql").read_text(encoding="utf-8"), {"job": JOB})
        open_key, number = cursor.fetchone() or (None, 0)
    return open_key or f"demo-{number + 1}"


def fetch_report(sluice: list[str], environment: dict[str, str], folder: Path, key: str) -> Path | None:
    """The run's report as a file, for S3 ends with the stack."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{key}.html"
    fetched = subprocess.run(
        [*sluice, "report", f"{JOB}:{key}", "--output", str(path)], env=environment, capture_output=True, check=False
    )
    return path if fetched.returncode == 0 else None


def result_lines(dsn: str, key: str, report: Path | None) -> list[str]:
    """What became of the run, and how to look inside."""
    with closing(psycopg2.connect(dsn, cursor_factory=NamedTupleCursor)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT run_id, state FROM sluice.run WHERE job = %s AND run_key = %s", (JOB, key))
        run: Any = cursor.fetchone()
        if run is None:
            return ["The run was refused before it was opened."]
        totals = named(cursor, "run_totals", run.run_id)[0]
        findings = named(cursor, "read_findings", run.run_id)
    checks = [
        f"  {'passed' if not row.row_count else row.severity:8} {row.name}: {row.row_count:,} rows" for row in findings
    ]
    return [
        "",
        f"rows      {totals.rows_marked:,} marked, {totals.rows_updated:,} updated, {totals.late_rows:,} late",
        f"chunks    {totals.chunks_done:,} of {totals.chunks:,}, {totals.attempts:,} attempts",
        "checks",
        *checks,
        f"report    {report or 'none'}",
        "",
        "Look inside: `make up`, then `source .sluice/env` and",
        "  psql \"$SLUICE_DSN\" -c 'SELECT * FROM sluice.run_status'",
        '  aws stepfunctions list-executions --state-machine-arn "$SLUICE_STATE_MACHINE_ARN"',
        f"  sluice status {run.run_id}",
    ]


def named(cursor: Any, name: str, run_id: int) -> list[Any]:
    """The rows of one of the ledger's named queries."""
    from sluice.ledger import queries
    from sluice.sqltext import to_driver

    cursor.execute(to_driver(queries()[name]), {"run_id": run_id})
    return list(cursor.fetchall())
