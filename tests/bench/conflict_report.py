"""`make bench`: the chunked update against the same SELECT as one statement, on one machine, in one run.

Every figure is taken on a fresh copy of the same database, read once before the clock starts. Seconds are of the
update step alone: planning and work, without the step before and the checks behind it. The monolith is the pack's
SELECT in one UPDATE that joins by row address, the fastest form that was found.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Any

import psycopg2

from infra.local.postgres import Postgres as Server
from infra.local.postgres import temporary_home
from sluice.context import Context
from sluice.databases.postgres import Postgres
from sluice.finish import finish_run
from sluice.job import Job
from sluice.job_file import job_path, read_job
from sluice.run import open_run, plan_round, work_chunk
from tests.connections import facts_of

REPOSITORY = Path(__file__).resolve().parents[2]
JOB = "conflict_report/conflict_report"
STEP = "update_conflicts"
SETTINGS = {
    "shared_buffers": "1GB",
    "max_wal_size": "16GB",
    "checkpoint_timeout": "1h",
    "autovacuum": "off",
}
MODES = ("fused", "visible", "run")
WORKERS = (1, 2, 4)


@dataclass(frozen=True)
class Figure:
    """One measured run of the update step. Seconds, bytes of WAL."""

    name: str
    workers: int
    plan: float
    work: float
    wal: int

    @property
    def seconds(self) -> float:
        return self.plan + self.work


def job_with(**changes: object) -> Job:
    """The job with its update step changed."""
    job = read_job(job_path(JOB))
    steps = [step.model_copy(update=changes) if step.name == STEP else step for step in job.spec.steps]
    job.spec = job.spec.model_copy(update={"steps": steps})
    return job


class Worked:
    """A run worked off in this process by some threads; remembers the seconds of each step."""

    def __init__(self, dsn: str, job: Job, workers: int) -> None:
        self.plan: dict[str, float] = {}
        self.work: dict[str, float] = {}
        self._dsn, self._job, self._local = dsn, job, local()
        self._opened: list[Postgres] = []
        self.run_id = open_run(self._context(), uuid.uuid4().hex, {}).run.run_id
        with ThreadPoolExecutor(workers) as pool:
            while self._round(pool):
                pass
        self.state = finish_run(self._context(), self.run_id).state
        for connection in self._opened:
            connection.close()

    def _round(self, pool: ThreadPoolExecutor) -> bool:
        started = time.perf_counter()
        planned = plan_round(self._context(), self.run_id)
        self._add(self.plan, planned.step, started)
        if planned.action != "work":
            return False
        started = time.perf_counter()
        list(pool.map(lambda chunk: work_chunk(self._context(), self.run_id, planned.step, chunk[0]), planned.chunks))
        self._add(self.work, planned.step, started)
        return True

    def _context(self) -> Context:
        if not hasattr(self._local, "context"):
            self._opened.append(Postgres(lambda force: facts_of(self._dsn)))
            self._local.context = Context(self._job, self._opened[-1])
        context: Context = self._local.context
        return context

    @staticmethod
    def _add(sums: dict[str, float], step: str, started: float) -> None:
        sums[step] = sums.get(step, 0.0) + time.perf_counter() - started


class Bench:
    """A server with one filled database that every figure gets a copy of."""

    def __init__(self, server: Server, rows: int) -> None:
        self.server, self.rows = server, rows
        self.source = f"source_{rows}"
        dsn = server.create_database(self.source)
        generator = runpy.run_path(str(REPOSITORY / "sql" / "packs" / "conflict_report" / "generate.py"))
        generator["generate"](dsn, generator["Size"](rows=rows))
        only_copy = job_with()
        only_copy.spec = only_copy.spec.model_copy(update={"steps": only_copy.spec.steps[:1]})
        assert Worked(dsn, only_copy, 1).state == "succeeded"
        execute(dsn, "VACUUM ANALYZE")
        execute(dsn, "CHECKPOINT")

    @contextmanager
    def copy(self) -> Iterator[str]:
        """A copy of the database, read once."""
        name = f"copy_{uuid.uuid4().hex[:8]}"
        dsn = self.server.create_database(name, template=self.source)
        execute(dsn, "SELECT count(*), sum(length(t::text)) FROM public.conflictvisitmaps AS t")
        execute(dsn, "SELECT count(*), sum(length(t::text)) FROM public.conflictvisitmaps_temp AS t")
        execute(dsn, "CHECKPOINT")
        yield dsn
        self.server.drop_database(name)

    def update(self, name: str, workers: int, **changes: object) -> Figure:
        """The update step alone on a copy."""
        job = job_with(**changes)
        job.spec = job.spec.model_copy(update={"steps": [step for step in job.spec.steps if step.name == STEP]})
        with self.copy() as dsn:
            before = execute(dsn, "SELECT pg_current_wal_insert_lsn()")
            worked = Worked(dsn, job, workers)
            assert worked.state == "succeeded", worked.state
            wal = execute(dsn, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), %s)", before)
            applied = execute(dsn, "SELECT sum(rows_updated) FROM sluice.chunk WHERE run_id = %s", worked.run_id)
            assert int(applied) == self.rows, applied
            return Figure(name, workers, worked.plan[STEP], worked.work[STEP], int(wal))

    def monolith(self) -> Figure:
        chunk = job_with().step(STEP).chunk.model_copy(update={"whole": True})  # type: ignore[union-attr]
        return self.update("monolith", 1, chunk=chunk, mark="fused")

    def histogram(self) -> tuple[float, float]:
        """Seconds of planning and of its bare GROUP BY, both on a copy whose rows are all to do."""
        with self.copy() as dsn:
            statement = 'SELECT "VisitDate", "SSN", count(*) FROM public.conflictvisitmaps GROUP BY 1, 2 ORDER BY 1, 2'
            bare = min(seconds(lambda: execute(dsn, f"EXPLAIN (ANALYZE, TIMING OFF) {statement}")) for _ in range(2))
            job = job_with()
            job.spec = job.spec.model_copy(update={"steps": [job.step(STEP)]})
            with closing(Postgres(lambda force: facts_of(dsn))) as connection:
                context = Context(job, connection)
                run_id = open_run(context, "planned", {}).run.run_id
                return seconds(lambda: plan_round(context, run_id)), bare


def seconds(action: Any) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def execute(dsn: str, statement: str, *values: object) -> Any:
    """Run a statement outside a transaction; the first value of its first row."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET jit = off")
            cursor.execute(statement, values or None)
            return (cursor.fetchone() or (None,))[0] if cursor.description else None


def table(bench: Bench) -> list[str]:
    """The measured table as Markdown."""
    bench.monolith()
    whole = min((bench.monolith() for _ in range(2)), key=lambda figure: figure.seconds)
    lines = [
        f"| {bench.rows:,} rows | workers | plan s | work s | of the monolith | rows/s | WAL of the monolith |",
        "|---|---|---|---|---|---|---|",
        row(bench, whole, whole),
    ]
    for mode in MODES:
        for workers in WORKERS:
            figures = [bench.update(mode, workers, mark=mode) for _ in range(2)]
            lines.append(row(bench, min(figures, key=lambda figure: figure.seconds), whole))
            print(lines[-1], file=sys.stderr, flush=True)
    plan, bare = bench.histogram()
    lines += ["", f"planning {bench.rows:,} rows: {plan:.2f} s, its bare GROUP BY {bare:.2f} s ({plan / bare:.2f})"]
    return lines


def row(bench: Bench, figure: Figure, whole: Figure) -> str:
    return (
        f"| {figure.name} | {figure.workers} | {figure.plan:.2f} | {figure.work:.2f} "
        f"| {figure.seconds / whole.seconds:.2f} | {bench.rows / figure.seconds:,.0f} | {figure.wal / whole.wal:.2f} |"
    )


def machine(server: Server) -> str:
    with Path("/proc/cpuinfo").open() as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    version = execute(server.dsn(), "SHOW server_version")
    return f"{os.cpu_count()} cores ({model}), PostgreSQL {version}, Python {sys.version.split()[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 1_000_000])
    options = parser.parse_args()
    home = temporary_home()
    try:
        with Server.start(home, settings=SETTINGS) as server:
            print(machine(server), flush=True)
            for rows in options.rows:
                print("\n".join(["", *table(Bench(server, rows))]), flush=True)
            print("\n".join(["", *whole_runs(min(options.rows))]), flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def whole_runs(rows: int) -> list[str]:
    """The whole job end to end: the warm local stack against `--inline` with as many workers."""
    from infra.local.stack import LocalStack

    home = temporary_home()
    generator = runpy.run_path(str(REPOSITORY / "sql" / "packs" / "conflict_report" / "generate.py"))
    try:
        with LocalStack(data_dir=home, postgres_settings=SETTINGS, prewarm=5) as stack:
            generator["generate"](stack.dsn, generator["Size"](rows=rows))
            execute(stack.dsn, "VACUUM ANALYZE")
            client = stack.client("stepfunctions")
            through = [seconds(lambda: execution(client, stack.state_machine_arn)) for _ in range(4)]
            inline = [seconds(lambda: Worked(stack.dsn, job_with(), 5)) for _ in range(3)]
    finally:
        shutil.rmtree(home, ignore_errors=True)
    best, alone = min(through[1:]), min(inline)
    return [
        f"{rows:,} rows end to end (copy, update, checks, report): {best:.2f} s on the warm local stack "
        f"(first run {through[0]:.2f} s), {alone:.2f} s with --inline ({best / alone:.2f})"
    ]


def execution(client: Any, arn: str) -> None:
    """One run of the job through Step Functions."""
    started = client.start_execution(stateMachineArn=arn, input=f'{{"job": "{JOB}", "run_key": "{uuid.uuid4().hex}"}}')[
        "executionArn"
    ]
    deadline = time.monotonic() + 600
    while (answer := client.describe_execution(executionArn=started))["status"] == "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert answer["status"] == "SUCCEEDED", answer


if __name__ == "__main__":
    main()
