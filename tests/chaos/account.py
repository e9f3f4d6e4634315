"""The account at the end: every row against the number of applications that it should have had."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.chaos.arena import run_sql


@dataclass(frozen=True)
class RunRow:
    """A run as chaos.runs has it."""

    run_id: int
    run_key: str
    state: str
    desired: str
    wave: int
    opened_at: datetime
    finished_at: datetime | None
    error: str | None
    planned_out_at: datetime | None
    last_done_at: datetime | None


@dataclass
class Row:
    """What became of one row. Born and died: None for the start and the end of the campaign.

    runs: the runs that applied it. born_by: when everyone could see it, None where that is not known.
    """

    runs: list[int]
    original: bool = True
    born_by: datetime | None = None
    died_at: datetime | None = None


@dataclass
class Account:
    """Counts, and what is wrong; `problems` has only names with a number above zero."""

    applied: dict[int, Counter[str]] = field(default_factory=dict)
    lost: int = 0
    twice: int = 0
    problems: Counter[str] = field(default_factory=Counter)

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.twice or +self.problems)


def runs_of(dsn: str) -> list[RunRow]:
    """All runs of the campaign, oldest first."""
    columns = ", ".join(RunRow.__dataclass_fields__)
    return [RunRow(*row) for row in run_sql(dsn, f"SELECT {columns} FROM chaos.runs ORDER BY run_id")]


def rows_of(dsn: str) -> dict[int, Row]:
    """Every row that ever was."""
    rows = {visit: Row(runs) for visit, runs in run_sql(dsn, 'SELECT "ID", "Runs" FROM chaos.visits')}
    journal = run_sql(
        dsn,
        "SELECT deed, visit, runs, at, seen_at FROM chaos.journal WHERE deed IN ('inserted', 'deleted') ORDER BY entry",
    )
    for deed, visit, runs, at, _seen_at in journal:
        if deed == "deleted":
            rows[visit] = Row(runs, died_at=at)
    for deed, visit, _runs, _at, seen_at in journal:
        if deed == "inserted":
            rows[visit].original, rows[visit].born_by = False, seen_at
    return rows


def had_to_be_applied(row: Row, run: RunRow) -> bool:
    """Whether the run's last look at the table must have found the row.

    That look came after the last chunk was done and before the step ended.
    """
    if run.last_done_at is None or run.planned_out_at is None:
        return False
    was_there = row.original or (row.born_by is not None and row.born_by < run.last_done_at)
    stayed = row.died_at is None or row.died_at > run.planned_out_at
    return was_there and stayed


def outcome(row: Row, run: RunRow, times: int) -> str:
    """What the account calls the row's share in the run."""
    if times > 1:
        return f"applied {times} times"
    if times == 1:
        return "applied once"
    if had_to_be_applied(row, run):
        return "lost"
    if row.died_at is not None and (run.finished_at is None or row.died_at < run.finished_at):
        return "deleted before it was applied"
    return "inserted too late for it"


def compare(dsn: str) -> Account:
    """Compare every row with every run."""
    account, rows, runs = Account(), rows_of(dsn), runs_of(dsn)
    for run in runs:
        applied = account.applied[run.run_id] = Counter()
        for row in rows.values():
            times = row.runs.count(run.run_id)
            applied[outcome(row, run, times)] += 1
            account.twice += times > 1
            account.lost += times == 0 and had_to_be_applied(row, run)
        if run.state != "succeeded":
            account.problems[f"run {run.run_key} is {run.state}"] += 1
    checks = {
        "rows whose two counters disagree": 'SELECT count(*) FROM chaos.visits WHERE "applied" <> cardinality("Runs")',
        "rows that are still flagged": 'SELECT count(*) FROM chaos.visits WHERE "UpdateFlag" IS NOT NULL',
        "applied rows with a wrong value": (
            'SELECT count(*) FROM chaos.visits WHERE "Runs" <> \'{}\' AND "Doubled" IS DISTINCT FROM "Minutes" * 2'
        ),
        "rows that lost a change of the application": """
            SELECT count(*) FROM chaos.visits LEFT JOIN (
                SELECT visit, count(*) AS n FROM chaos.journal WHERE deed = 'touched' GROUP BY visit) AS journal
            ON visit = "ID" WHERE "Touched" <> coalesce(n, 0)""",
    }
    for name, statement in checks.items():
        account.problems[name] += run_sql(dsn, statement)[0][0]
    return account


def compare_ledger(dsn: str, account: Account, answers: list[dict[str, Any]]) -> None:
    """What Sluice's ledger says against what the rows say; adds to the account's problems."""
    rows = rows_of(dsn)
    for run_id, updated in run_sql(
        dsn,
        """SELECT run_id, sum(rows_updated) FROM sluice.chunk JOIN sluice.step USING (run_id, step_no)
           WHERE kind = 'update' GROUP BY run_id""",
    ):
        seen = sum(row.runs.count(run_id) for row in rows.values())
        account.problems["rows that ledger and table count differently"] += abs(seen - int(updated))
    [(marked, unmarked)] = run_sql(dsn, MARKS)
    account.problems["marks that nothing accounts for"] += abs(marked - unmarked)
    started = run_sql(dsn, "SELECT run_id FROM sluice.run LEFT JOIN chaos.started USING (run_id) "
                           "GROUP BY run_id HAVING count(chaos.started.run_id) <> 1")  # fmt: skip
    account.problems["sql steps not done exactly once"] += len(started)
    done = dict(run_sql(dsn, "SELECT ARRAY[run_id, step_no, chunk_no]::text, rows_updated FROM sluice.chunk"))
    steps = {(run, name): number for run, name, number in run_sql(dsn, "SELECT run_id, name, step_no FROM sluice.step")}
    for answer in answers:
        place = f"{{{answer['run_id']},{steps[answer['run_id'], answer['step']]},{answer['chunk']}}}"
        if answer["state"] == "done" and answer["step"] == "apply" and answer["rows"] != done[place]:
            account.problems["answers that differ for one chunk"] += 1


# Each mark ends by an application, by a hand, by the end or reset of a run, or with its row.
MARKS = """
SELECT (SELECT coalesce(sum(rows_marked), 0) FROM sluice.chunk),
       (SELECT coalesce(sum(rows_updated), 0) FROM sluice.chunk
        JOIN sluice.step USING (run_id, step_no) JOIN sluice.run USING (run_id)
        WHERE kind = 'update' AND job NOT LIKE '%/fused')
     + (SELECT coalesce(sum(n), 0) FROM chaos.journal WHERE deed = 'freed')
     + (SELECT count(*) FROM chaos.journal WHERE deed = 'deleted' AND flagged)
     + (SELECT coalesce(sum(n), 0) FROM sluice.event WHERE event = 'flags_cleared')
"""

SUMMARY = """
SELECT run.run_id, job, generation,
       (SELECT planned_rows FROM sluice.step WHERE step.run_id = run.run_id AND kind = 'update'),
       (SELECT late_rows FROM sluice.step WHERE step.run_id = run.run_id AND kind = 'update'),
       (SELECT wave + 1 FROM sluice.step WHERE step.run_id = run.run_id AND kind = 'update'),
       (SELECT sum(rows_marked) FROM sluice.chunk WHERE chunk.run_id = run.run_id),
       (SELECT sum(rows_updated) FROM sluice.chunk JOIN sluice.step USING (run_id, step_no)
        WHERE chunk.run_id = run.run_id AND kind = 'update'),
       (SELECT count(*) FROM sluice.chunk WHERE chunk.run_id = run.run_id),
       extract(epoch FROM finished_at - opened_at)::float
FROM sluice.run ORDER BY run_id
"""


def tell(dsn: str, account: Account, counts: Mapping[str, int], executions: Counter[str]) -> str:
    """The account in lines."""
    lines = []
    for run_id, job, generation, planned, late, waves, marked, updated, chunks, seconds in run_sql(dsn, SUMMARY):
        lines.append(
            f"run {run_id} {job}: planned {planned}, marked {marked}, applied {updated}, late {late} in {waves - 1} "
            f"waves, chunks {chunks}, resets {generation - 1}, {seconds:.0f} s; rows {listed(account.applied[run_id])}"
        )
    outcomes = run_sql(dsn, "SELECT coalesce(outcome, 'open'), count(*) FROM sluice.attempt GROUP BY 1 ORDER BY 2 DESC")
    lines.append(f"attempts: {listed(dict(outcomes))}")
    codes = run_sql(
        dsn, "SELECT code, count(*) FROM sluice.attempt WHERE code IS NOT NULL GROUP BY 1 ORDER BY 2 DESC LIMIT 8"
    )
    lines.append(f"errors of attempts: {listed(dict(codes))}")
    lines.append(f"executions: {listed(executions)}")
    lines.append(f"done to them: {listed(counts)}")
    return "\n".join(lines)


def listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items()) or "none"
