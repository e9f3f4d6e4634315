"""The dry run: what a run would do, tried on one chunk and rolled back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from psycopg2 import sql

from sluice.chunks import Cut, Cutter, Key
from sluice.context import Context, run_values
from sluice.databases.postgres import Transaction
from sluice.job import SqlStep, UpdateStep
from sluice.ledger import Ledger, Run, migrate
from sluice.run import rehearsal_run
from sluice.steps.sql import run_file
from sluice.steps.update import apply_to
from sluice.steps.update_sql import Bounds, UpdateSql
from sluice.steps.update_target import rehearse, update_sql, warnings

PRICES = Path(__file__).with_name("prices.json")
TRANSITIONS_A_CHUNK = 4
TRANSITIONS_A_RUN = 20
GROWS_BEYOND = 20
"""A scan of so many times the chunk's rows grows with the table rather than with the chunk."""
SMALL_TABLE_ROWS = 20_000


@dataclass(frozen=True)
class Phase:
    """One tried statement: rows, seconds, bytes of WAL, and where its plan grows with the table."""

    name: str
    rows: int
    seconds: float
    wal_bytes: int
    plan: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StepPlan:
    """What a step would do. Rows and chunks are counted; an update's phases are of one chunk in the middle."""

    name: str
    kind: str
    target: str | None = None
    rows: int = 0
    chunks: int = 0
    groups: int = 0
    null_rows: int = 0
    largest_group: int = 0
    median_chunk: int = 0
    largest_chunk: int = 0
    oversized_groups: int = 0
    seconds: float = 0.0
    phases: list[Phase] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class RolledBack(Exception):
    """Ends the transaction of a dry run."""


def plan(context: Context, params: Mapping[str, object], *, rehearse_steps: bool = True) -> dict[str, Any]:
    """Try the job in one transaction that is rolled back.

    Counts and cuts every update step, rehearses `sql` steps and one chunk of each update, reads their plans, forecasts
    time, WAL and cost. Leaves target and ledger as they were. Without `rehearse_steps` nothing is executed that would
    write; a step that reads what an earlier one makes may then fail.
    Raises BadInputError where the job does not fit.
    """
    values = context.job.bind(params)
    steps: list[StepPlan] = []
    try:
        with context.transaction("sluice:dry-run") as transaction:
            migrate(transaction)
            run = rehearsal_run(context, values)
            for spec in context.job.spec.steps:
                match spec:
                    case SqlStep():
                        steps.append(plan_sql(context, transaction, run, spec, rehearse_steps))
                    case UpdateStep():
                        steps.append(plan_update(context, transaction, run, spec, rehearse_steps))
                    case _:
                        steps.append(StepPlan(spec.name, spec.kind, chunks=1))
            raise RolledBack
    except RolledBack:
        pass
    return {
        "job": context.job.name,
        "params": values,
        "steps": [asdict(step) for step in steps],
        "forecast": forecast(context, steps),
    }


def plan_sql(context: Context, transaction: Transaction, run: Run, spec: SqlStep, execute: bool) -> StepPlan:
    """A `sql` step, run where that is wanted: later steps may read what it makes."""
    if not execute:
        return StepPlan(spec.name, spec.kind, chunks=1, warnings=["not rehearsed"])
    phase = timed(transaction, "run", lambda: run_file(context, transaction, spec, run))
    return StepPlan(spec.name, spec.kind, rows=phase.rows, chunks=1, seconds=phase.seconds, phases=[phase])


def plan_update(context: Context, transaction: Transaction, run: Run, spec: UpdateStep, execute: bool) -> StepPlan:
    """An update step: its cut, its plans, and one chunk tried."""
    statements = update_sql(context, transaction, spec, run)
    rehearse(context, transaction, statements, run)
    found = warnings(Ledger(transaction), statements)
    started = time.perf_counter()
    cuts, largest_group = cut_all(transaction, statements, run)
    seconds = time.perf_counter() - started
    oversized = [cut for cut in cuts if cut.oversized and not cut.is_null]
    null_rows = sum(cut.rows for cut in cuts if cut.is_null)
    if oversized:
        found.append(
            f"step '{spec.name}': key groups of more than {spec.chunk.max_rows} rows, each one chunk: {len(oversized)} "
            f"(the largest {max(cut.rows for cut in oversized)} rows)"
        )
    if null_rows > spec.chunk.max_rows:
        found.append(f"step '{spec.name}': {null_rows} rows have a NULL in their key and are one chunk")
    sizes = [cut.rows for cut in cuts] or [0]
    ranges = [cut for cut in cuts if not cut.is_null]
    tried = try_chunk(transaction, statements, run, ranges[len(ranges) // 2]) if ranges and execute else []
    return StepPlan(
        spec.name,
        spec.kind,
        target=spec.target,
        rows=sum(sizes),
        chunks=len(cuts),
        groups=sum(cut.groups for cut in cuts),
        null_rows=null_rows,
        largest_group=largest_group,
        median_chunk=int(median(sizes)),
        largest_chunk=max(sizes),
        oversized_groups=len(oversized),
        seconds=seconds,
        phases=tried,
        warnings=found + [warning for phase in tried for warning in phase.warnings],
    )


def cut_all(transaction: Transaction, statements: UpdateSql, run: Run) -> tuple[list[Cut], int]:
    """The chunks that would be planned, and the rows of the largest key group."""
    spec, largest = statements.spec, 0
    width = len(spec.key)

    def groups() -> Iterator[tuple[Key, bool, int]]:
        nonlocal largest
        for group in transaction.stream(statements.statement("histogram"), run_values(run)):
            if not group[width]:
                largest = max(largest, group[width + 1])
            yield group[:width], group[width], group[width + 1]

    nullable = any(not statements.columns[name].not_null for name in spec.key)
    cuts = list(Cutter(spec.chunk, nullable=nullable).cut(groups()))
    return cuts, largest


def try_chunk(transaction: Transaction, statements: UpdateSql, run: Run, cut: Cut) -> list[Phase]:
    """Mark and apply one chunk inside a savepoint that is rolled back."""
    bounds = Bounds(cut.lo, cut.hi)
    values: dict[str, object] = {**run_values(run), **bounds.values()}
    phases = []
    transaction.execute("SAVEPOINT tried")
    claimed = statements.spec.mark != "fused"
    if claimed:
        mark = statements.statement("mark", bounds)
        nodes, found = explain(transaction, mark, values, cut.rows)
        phase = timed(transaction, "mark", lambda: transaction.execute(mark, values))
        phases.append(replace(phase, plan=nodes, warnings=found))
    locked = transaction.row(statements.statement("lock_rows", bounds, claimed_only=claimed), values)
    if locked.n:
        addressed = {**values, "addresses": locked.addresses}
        nodes, found = explain(transaction, statements.statement("apply"), addressed, locked.n)

        def apply() -> int:
            apply_to(transaction, statements, locked.addresses, locked.n, values)
            return int(locked.n)

        phases.append(replace(timed(transaction, "apply", apply), plan=nodes, warnings=found))
    transaction.execute("ROLLBACK TO SAVEPOINT tried")
    return phases


def timed(transaction: Transaction, name: str, statement: Callable[[], int]) -> Phase:
    """Run a statement; gives its rows, seconds and WAL bytes."""
    before = transaction.row("SELECT pg_current_wal_insert_lsn() AS lsn").lsn
    started = time.perf_counter()
    rows = statement()
    seconds = time.perf_counter() - started
    wal = transaction.row("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), :lsn) AS bytes", {"lsn": before}).bytes
    return Phase(name, rows, seconds, int(wal))


def explain(
    transaction: Transaction, statement: sql.Composed, values: Mapping[str, object], rows: int
) -> tuple[list[str], list[str]]:
    """The plan as one line a node, and warnings for the nodes that grow with the table."""
    prefixed = sql.SQL("EXPLAIN (VERBOSE, FORMAT JSON) ") + statement
    tree = transaction.row(prefixed, values)[0]
    tree = json.loads(tree) if isinstance(tree, str) else tree
    lines, found = [], []
    for depth, node in walk(tree[0]["Plan"]):
        relation = node.get("Relation Name", "")
        lines.append(f"{'  ' * depth}{node['Node Type']} {relation}".rstrip() + f" rows={node['Plan Rows']}")
        # An InitPlan that is a bare scan answers EXISTS: it stops at the first row.
        if node["Node Type"] != "Seq Scan" or node.get("Parent Relationship") == "InitPlan":
            continue
        read = Ledger(transaction).row("table_rows", schema=node["Schema"], table=relation).n
        if read > max(GROWS_BEYOND * rows, SMALL_TABLE_ROWS):
            found.append(f"the plan reads all of {relation} for each chunk: an index is missing or was not chosen")
    return lines, found


def walk(node: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[int, Mapping[str, Any]]]:
    yield depth, node
    for child in node.get("Plans", ()):
        yield from walk(child, depth + 1)


def forecast(context: Context, steps: Sequence[StepPlan]) -> dict[str, Any]:
    """Seconds, WAL bytes and US dollars that a whole run would take, from what was tried.

    Seconds of an update step assume that its chunks take as long as the one tried, side by side as far as the job
    allows; the database decides whether they do.
    """
    concurrency = context.job.spec.max_concurrency
    seconds = busy = wal = 0.0
    chunks = 0
    for step in steps:
        tried = sum(phase.seconds for phase in step.phases)
        if step.kind == "update":
            per_row = tried / max((phase.rows for phase in step.phases), default=1) if step.phases else 0.0
            work = per_row * step.rows
            seconds += step.seconds + work / max(1, min(concurrency, step.chunks))
            busy += step.seconds + work
            scale = step.rows / max(1, max((phase.rows for phase in step.phases), default=1))
            wal += sum(phase.wal_bytes for phase in step.phases) * scale
        else:
            seconds, busy = seconds + tried, busy + tried
            wal += sum(phase.wal_bytes for phase in step.phases)
        chunks += step.chunks
    prices = json.loads(PRICES.read_text(encoding="utf-8"))
    transitions = TRANSITIONS_A_RUN + TRANSITIONS_A_CHUNK * chunks
    dollars = {
        "lambda": busy * prices["memory_gb"] * prices["lambda_gb_second_arm64"]
        + (chunks + TRANSITIONS_A_RUN) * prices["lambda_request"],
        "step_functions": transitions * prices["state_transition"],
        "s3": 10 * len(steps) * prices["s3_put"] + 10 * len(steps) * prices["s3_get"],
    }
    return {
        "seconds": round(seconds, 3),
        "worker_seconds": round(busy, 3),
        "wal_bytes": int(wal),
        "chunks": chunks,
        "state_transitions": transitions,
        "dollars": {name: round(amount, 6) for name, amount in dollars.items()},
        "prices_as_of": prices["as_of"],
    }
