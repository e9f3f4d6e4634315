"""A local stack of one's own whose functions work a pack of one's own."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2

from infra.local.lambda_pool import LambdaPool
from infra.local.postgres import temporary_home
from infra.local.stack import REPOSITORY, LocalStack

KILLED = "Error: Runtime exited with error: signal: killed"


@contextmanager
def arena(pack: Path, *, clock_speed: float, functions: Path = REPOSITORY / "functions") -> Iterator[LocalStack]:
    """A throw-away stack of the repository's template whose only pack is that folder; nothing of it is left."""
    home = temporary_home()
    try:
        project = home / "project"
        # Copies: whoever works on the engine meanwhile does not change it under a run.
        for source, name in (
            (functions, "functions"),
            (REPOSITORY / "layers", "layers"),
            (REPOSITORY / "statemachines", "statemachines"),
            (REPOSITORY / "sql" / "ledger", "sql/ledger"),
            (pack, f"sql/packs/{pack.name}"),
        ):
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(REPOSITORY / "template.yaml", project)
        with LocalStack(
            template=project / "template.yaml",
            data_dir=home,
            durable=False,
            clock_speed=clock_speed,
            postgres_settings={"max_connections": "200", "deadlock_timeout": "200ms"},
        ) as stack:
            yield stack
    finally:
        shutil.rmtree(home, ignore_errors=True)


def run_sql(dsn: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a statement in a session of its own, committed; gives its rows."""
    connection = psycopg2.connect(dsn, application_name="chaos")
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@dataclass(frozen=True)
class Busy:
    """A worker process that is at work, and on what."""

    pid: int
    function: str
    request_id: str
    payload: dict[str, Any]


def busy_workers(pool: LambdaPool) -> list[Busy]:
    """The workers that have an invocation right now, of any function."""
    found = []
    for fleet in list(pool._fleets.values()):
        for worker in list(fleet.workers):
            invocation = worker.current
            if invocation is not None:
                payload = json.loads(invocation.payload)
                found.append(Busy(worker.pid, fleet.function.name, invocation.request_id, payload))
    return found


def invocations_killed(pool: LambdaPool) -> Counter[str]:
    """How many invocations of each function lost their worker to SIGKILL, as the functions' logs tell."""
    logs = {function.name: pool.log_path(function.name) for function in pool.functions()}
    return Counter({name: log.read_text(errors="replace").count(KILLED) for name, log in logs.items() if log.exists()})
