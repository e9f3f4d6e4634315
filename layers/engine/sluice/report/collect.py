"""The account of a run, read from the ledger.

Only counts, times, numbers of chunks and texts of the engine are read: bounds of chunks and keys of findings stay in
the database. The database aggregates, so the account of 100,000 chunks is as small as that of ten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any

from psycopg2 import sql

from sluice.context import Context
from sluice.ledger import Ledger, Run, queries, template
from sluice.sqltext import to_driver

VERSION = 1
MOST_POINTS = 240
MOST_RATES = 60
MOST_BARS = 24
MOST_SLOWEST = 10
MOST_ERRORS = 20
MOST_EVENTS = 60
LONGEST_TEXT = 500
NINE_DIGITS = re.compile(r"\b\d{3}-?\d{2}-?\d{4}\b")


@dataclass(frozen=True)
class WorkingTime:
    """The stretches in which chunks of rows were at work, laid end to end."""

    starts: list[datetime]
    lengths: list[float]

    @property
    def seconds(self) -> float:
        return sum(self.lengths)

    @property
    def offsets(self) -> list[float]:
        """Where each stretch begins, in seconds of working time."""
        return list(accumulate(self.lengths, initial=0.0))[:-1]

    def clock(self, seconds: float) -> datetime:
        """The time of day at that second of working time."""
        for start, offset, length in zip(self.starts, self.offsets, self.lengths, strict=True):
            if seconds <= offset + length:
                return start + timedelta(seconds=seconds - offset)
        return self.starts[-1] + timedelta(seconds=self.lengths[-1])

    def pauses(self) -> list[dict[str, Any]]:
        """Where working time skips a pause: its place in working time and its length."""
        ends = [start + timedelta(seconds=length) for start, length in zip(self.starts, self.lengths, strict=True)]
        return [
            {"at_seconds": rounded(offset), "seconds": rounded((start - end).total_seconds())}
            for offset, start, end in zip(self.offsets[1:], self.starts[1:], ends[:-1], strict=True)
        ]

    def arrays(self) -> dict[str, object]:
        """The stretches as parameters of a query."""
        return {"starts": self.starts, "offsets": self.offsets, "lengths": self.lengths}


def collect(context: Context, run: Run) -> dict[str, Any]:
    """The run as a JSON-able mapping of bounded size; times are ISO 8601 in UTC, durations are seconds.

    Works for a run in any state. Holds no value of a row: `findings` count rows and name the SQL that shows their keys.
    """
    with context.transaction(f"sluice:{run.run_id}:report") as transaction:
        ledger = Ledger(transaction)
        now = ledger.row("report_clock").now
        spans = ledger.rows("report_spans", run_id=run.run_id)
        working = WorkingTime([span.started_at for span in spans], [max(span.seconds, 0.001) for span in spans])
        steps = ledger.rows("report_steps", run_id=run.run_id)
        return {
            "version": VERSION,
            "written": iso(now),
            "run": identity(run),
            "timing": timing(run, now, working),
            "totals": totals(ledger, run, steps, working),
            "steps": [step_account(step) for step in steps],
            "progress": progress(ledger, run, working),
            "rates": rates(ledger, run, working),
            "durations": durations(ledger, run),
            "slowest": slowest(ledger, run),
            "errors": errors(ledger, run),
            "findings": findings(ledger, run),
            "invariants": [
                {"name": row.name, "broken": int(row.n)} for row in ledger.rows("broken_invariants", run_id=run.run_id)
            ],
            "events": events(ledger, run),
            "moves": moves(ledger, run),
            "holds": holds(ledger, run, steps),
        }


def identity(run: Run) -> dict[str, Any]:
    """Which run it is, what was asked of it and what became of it."""
    return {
        "job": run.job,
        "run_key": run.run_key,
        "run_id": run.run_id,
        "run_ts": iso(run.run_ts),
        "generation": run.generation,
        "params": dict(run.params),
        "state": run.state,
        "desired": run.desired,
        "reason": text(run.reason),
        "error_code": run.error_code,
        "error": text(run.error),
    }


def timing(run: Run, now: datetime, working: WorkingTime) -> dict[str, Any]:
    """When the run was open, and how long chunks of rows were at work in it."""
    return {
        "opened": iso(run.opened_at),
        "finished": iso(run.finished_at),
        "seconds": rounded(((run.finished_at or now) - run.opened_at).total_seconds()),
        "working_seconds": rounded(working.seconds),
        "pauses": working.pauses(),
    }


def totals(ledger: Ledger, run: Run, steps: Sequence[Any], working: WorkingTime) -> dict[str, Any]:
    """The account of rows, chunks and attempts."""
    row = ledger.row("run_totals", run_id=run.run_id)
    return {
        "rows_planned": row.planned_rows,
        "rows_late": row.late_rows,
        "rows_marked": row.rows_marked,
        "rows_updated": row.rows_updated,
        "rows_drift": row.drift_rows,
        "flags_cleared": row.flags_cleared,
        "chunks": row.chunks,
        "chunks_done": sum(step.done for step in steps),
        "chunks_quarantined": row.quarantined,
        "chunks_skipped": sum(step.skipped for step in steps),
        "chunks_split": sum(step.split for step in steps),
        "attempts": row.attempts,
        "outcomes": {outcome.outcome: outcome.n for outcome in ledger.rows("report_outcomes", run_id=run.run_id)},
        "rows_per_second": rounded(row.rows_updated / working.seconds) if working.seconds else 0.0,
    }


def step_account(step: Any) -> dict[str, Any]:
    """One step: what it is, how long it took, its rows and chunks, and why it is held back if it is."""
    return {
        "name": step.name,
        "kind": step.kind,
        "target": step.target,
        "started": iso(step.started_at),
        "finished": iso(step.finished_at),
        "seconds": None if step.seconds is None else rounded(step.seconds),
        "rounds": step.rounds,
        "waves": step.waves,
        "rows_planned": step.planned_rows,
        "rows_late": step.late_rows,
        "rows_drift": step.drift_rows,
        "rows_marked": step.rows_marked,
        "rows_updated": step.rows_updated,
        "chunks": {state: getattr(step, state) for state in ("done", "open", "quarantined", "skipped", "split")},
        "held": text(step.held),
    }


def progress(ledger: Ledger, run: Run, working: WorkingTime) -> list[dict[str, Any]]:
    """Rows committed so far and attempts failed, at most MOST_POINTS times over the working time."""
    if not working.starts:
        return []
    width = working.seconds / MOST_POINTS
    found = ledger.rows("report_progress", run_id=run.run_id, width=width, parts=MOST_POINTS, **working.arrays())
    points = [{"seconds": 0.0, "at": iso(working.clock(0.0)), "rows": 0, "setbacks": 0}]
    done = 0
    for row in found:
        done += row.rows
        seconds = (row.part + 1) * width
        points.append(
            {"seconds": rounded(seconds), "at": iso(working.clock(seconds)), "rows": done, "setbacks": row.setbacks}
        )
    return points


def rates(ledger: Ledger, run: Run, working: WorkingTime) -> list[dict[str, Any]]:
    """Rows per second in parts of the working time, each commit's rows spread over the time it took."""
    if not working.starts:
        return []
    width = working.seconds / MOST_RATES
    found = ledger.rows("report_rates", run_id=run.run_id, width=width, parts=MOST_RATES, **working.arrays())
    rows = {row.part: row.rows for row in found}
    return [
        {
            "from_seconds": rounded(part * width, 6),
            "to_seconds": rounded((part + 1) * width, 6),
            "rows_per_second": rounded(rows.get(part, 0.0) / width),
        }
        for part in range(MOST_RATES)
    ]


def of_chunks(name: str) -> sql.Composed:
    """A query of report.sql over the chunks that are done and their times."""
    return template(name, chunk_seconds=sql.SQL(to_driver(queries()["report_chunk_seconds"])))


def durations(ledger: Ledger, run: Run) -> dict[str, Any]:
    """How long chunks took: percentiles, and bars of equal width of which the last has no end."""
    found = ledger.transaction.row(of_chunks("report_durations"), {"run_id": run.run_id})
    if not found.n:
        return {"chunks": 0, "p50": None, "p95": None, "max": None, "bars": []}
    middle, most, nearly_all = found.within
    # A long tail goes into the last bar rather than pressing all others together.
    width = nice_width(min(nearly_all, most * 1.5) or found.longest)
    bars = max(1, min(MOST_BARS, int(found.longest / width) + 1))
    values = {"run_id": run.run_id, "width": width, "bars": bars}
    counts = {row.bar: row.n for row in ledger.transaction.rows(of_chunks("report_histogram"), values)}
    ends: list[float | None] = [rounded((bar + 1) * width, 6) for bar in range(bars)]
    if found.longest > bars * width:
        ends[-1] = None
    return {
        "chunks": found.n,
        "p50": rounded(middle),
        "p95": rounded(most),
        "max": rounded(found.longest),
        "bars": [
            {"from_seconds": rounded(bar * width, 6), "to_seconds": end, "chunks": counts.get(bar, 0)}
            for bar, end in enumerate(ends)
        ],
    }


def nice_width(nearly_longest: float) -> float:
    """A round width of bars, in seconds, so that nearly all of the chunks fall into fewer than MOST_BARS."""
    least = max(nearly_longest, 0.001) / (MOST_BARS - 2)
    power = 0.0001
    while True:
        for factor in (1, 2, 5):
            if power * factor >= least:
                return round(power * factor, 4)
        power *= 10


def slowest(ledger: Ledger, run: Run) -> list[dict[str, Any]]:
    """The chunks that took longest, by number."""
    values = {"run_id": run.run_id, "most": MOST_SLOWEST}
    return [
        {
            "step": row.step,
            "chunk": row.chunk_no,
            "rows": row.rows_updated,
            "seconds": rounded(row.seconds),
            "attempts": row.attempts,
        }
        for row in ledger.transaction.rows(of_chunks("report_slowest"), values)
    ]


def errors(ledger: Ledger, run: Run) -> dict[str, Any]:
    """Errors of attempts by code, the most frequent first, each with its last text; `total` counts codes."""
    found = ledger.rows("report_errors", run_id=run.run_id, most=MOST_ERRORS)
    return listed(
        found,
        lambda row: {
            "code": row.code,
            "attempts": row.n,
            "chunks": row.chunks,
            "first": iso(row.first_at),
            "last": iso(row.last_at),
            "text": text(row.text),
        },
    )


def findings(ledger: Ledger, run: Run) -> list[dict[str, Any]]:
    """What the checks found, in rows; their keys are shown by `read_with`, inside the database."""
    return [
        {
            "step": row.step,
            "name": row.name,
            "description": row.description,
            "severity": row.severity,
            "rows": row.row_count,
            "read_with": quoted(ledger, "show_keys", run_id=run.run_id, name=row.name),
        }
        for row in ledger.rows("read_findings", run_id=run.run_id)
    ]


def quoted(ledger: Ledger, query: str, /, **values: object) -> str:
    """A named query with its values filled in, as a line to paste into psql."""
    with ledger.transaction.connection.cursor() as cursor:
        return bytes(cursor.mogrify(to_driver(queries()[query]), values)).decode() + ";"


def events(ledger: Ledger, run: Run) -> dict[str, Any]:
    """What happened to the run as a whole, in order, with how many events there are."""
    found = ledger.rows("report_events", run_id=run.run_id, most=MOST_EVENTS)
    return listed(
        found[::-1],
        lambda row: {
            "at": iso(row.at),
            "event": row.event,
            "step": row.step,
            "n": row.n,
            "detail": text(row.detail),
        },
    )


def moves(ledger: Ledger, run: Run) -> dict[str, Any]:
    """Chunks that were split, set aside, given a new start or left undone, by reason."""
    found = ledger.rows("report_moves", run_id=run.run_id, most=MOST_EVENTS)
    return listed(
        sorted(found, key=lambda row: row.at),
        lambda row: {
            "at": iso(row.at),
            "until": iso(row.until),
            "event": "retried" if row.event == "planned" else row.event,
            "step": row.step,
            "n": row.n,
            "chunks": list(row.chunk_nos),
            "detail": text(row.detail),
        },
    )


def listed(rows: list[Any], account: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    """Rows of a limited query beside how many there are in all."""
    return {"total": rows[0].total if rows else 0, "list": [account(row) for row in rows]}


def holds(ledger: Ledger, run: Run, steps: Iterable[Any]) -> list[dict[str, Any]]:
    """How long health checks held chunks back, and what holds them back now."""
    ended = [
        {
            "step": row.step,
            "check": row.check_name,
            "times": row.n,
            "seconds": row.seconds,
            "reason": text(row.reason),
            "now": False,
        }
        for row in ledger.rows("report_holds", run_id=run.run_id, most=MOST_ERRORS)
    ]
    present = [
        {
            "step": step.name,
            "check": step.held.partition(":")[0],
            "times": 1,
            "seconds": rounded(step.held_seconds or 0.0),
            "reason": text(step.held),
            "now": True,
        }
        for step in steps
        if step.held
    ]
    return [*ended, *present]


def iso(at: datetime | None) -> str | None:
    """The time in UTC, to the millisecond."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rounded(value: float, digits: int = 3) -> float:
    """Enough digits for a reader: milliseconds, unless more are asked for."""
    return round(float(value), digits)


def text(value: str | None) -> str | None:
    """A free text for the report: one line of bounded length, in which what looks like an SSN is masked.

    The engine's own texts hold no row's value; this fence is for what operators and databases write.
    """
    if value is None:
        return None
    line = NINE_DIGITS.sub("***-**-****", " ".join(value.split()))
    return line if len(line) <= LONGEST_TEXT else f"{line[: LONGEST_TEXT - 1]}…"
