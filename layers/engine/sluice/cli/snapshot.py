"""A run at one moment, as the ledger's views show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sluice.cli.output import STYLES, as_dict, percent, seconds, shown, since, table
from sluice.ledger import FINAL_STATES, Ledger

MOST_STUCK = 20


@dataclass(frozen=True)
class Snapshot:
    """A row of sluice.run_status with its steps, what its checks found, and how fast it goes.

    rows_per_second: over the last minute of work, over all of it where the run has ended. seconds_left: None where
    that cannot be said.
    """

    run: Any
    steps: list[Any]
    findings: list[Any]
    rows_per_second: float | None
    seconds_left: float | None

    @property
    def is_final(self) -> bool:
        return self.run.state in FINAL_STATES

    @property
    def succeeded(self) -> bool:
        return str(self.run.state).startswith("succeeded")

    def as_json(self) -> dict[str, Any]:
        """The columns of the views, with the figures and findings beside them."""
        return {
            **as_dict(self.run),
            "rows_per_second": self.rows_per_second,
            "seconds_left": self.seconds_left,
            "step_status": [as_dict(step) for step in self.steps],
            "findings": [as_dict(finding) for finding in self.findings],
        }


def take(ledger: Ledger, run_id: int) -> Snapshot:
    """The run as it is now; the run must exist."""
    run = ledger.row("run_status", run_id=run_id)
    recent = ledger.row("recent_rows", run_id=run_id)
    rate = recent.rows / recent.seconds if recent is not None and recent.rows and recent.seconds > 0 else None
    left = (run.rows_total - run.rows_done) / rate if rate and run.state in ("running", "held") else None
    return Snapshot(
        run,
        ledger.rows("step_status", run_id=run_id),
        [finding for finding in ledger.rows("read_findings", run_id=run_id) if finding.row_count],
        None if rate is None else round(rate, 1),
        None if left is None else round(left, 1),
    )


def title(now: Snapshot) -> str:
    return f"run {now.run.run_id}  {now.run.job}:{now.run.run_key}"


def rows_text(now: Snapshot) -> str:
    """Rows done of the total; late rows apart, for they are what may raise the total."""
    if not now.run.rows_total:
        return "no rows" if now.is_final else "no rows planned yet"
    late = f", {now.run.rows_late:,} of them late" if now.run.rows_late else ""
    return f"{now.run.rows_done:,} of {now.run.rows_total:,} rows ({percent(now.run.progress)}{late})"


def chunks_text(now: Snapshot) -> str:
    parts = [f"{now.run.chunks_done:,} of {now.run.chunks:,} chunks"]
    parts += [f"{now.run.attempts_open:,} at work"] if now.run.attempts_open and not now.is_final else []
    parts += [f"{now.run.chunks_quarantined:,} in quarantine"] if now.run.chunks_quarantined else []
    parts += [f"{now.run.chunks_skipped:,} skipped"] if now.run.chunks_skipped else []
    return ", ".join(parts)


def speed_text(now: Snapshot) -> str:
    if now.rows_per_second is None:
        return ""
    left = f", about {seconds(now.seconds_left)} left" if now.seconds_left else ""
    return f"{now.rows_per_second:,.0f} rows/s{left}"


def line(now: Snapshot) -> str:
    """The run in one line, for a log."""
    step = now.run.step if now.run.step and not now.is_final else ""
    reason = f"{now.run.state}: {now.run.reason}" if now.run.reason else now.run.state
    return "  ".join(part for part in (reason, step, rows_text(now), chunks_text(now), speed_text(now)) if part)


def panel(now: Snapshot) -> RenderableType:
    """The run as a few lines and a table of its steps."""
    head = Text.assemble((title(now), "bold"), "  ", (now.run.state, STYLES.get(now.run.state, "")))
    facts = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=100, completed=float(now.run.progress), width=40)
    facts.add_row(Text("rows", style="dim"), rows_text(now))
    facts.add_row("", bar)
    facts.add_row(Text("chunks", style="dim"), chunks_text(now))
    for name, value in facts_of(now):
        facts.add_row(Text(name, style="dim"), Text(value))
    return Group(head, facts, Text(), steps_table(now), *findings_table(now))


def facts_of(now: Snapshot) -> list[tuple[str, str]]:
    """What else is worth a line, by name; nothing empty."""
    run = now.run
    held = next((step for step in now.steps if step.held), None)
    lasted = "" if run.finished_at is None else f" after {seconds((run.finished_at - run.opened_at).total_seconds())}"
    facts = {
        "speed": speed_text(now),
        str(run.state): f"{run.reason}{f', for {since(held.held_since)}' if held and run.state == 'held' else ''}"
        if run.reason
        else "",
        "attempts": f"{run.attempts:,}, {run.attempts_failed:,} failed" if run.attempts_failed else f"{run.attempts:,}",
        "drift": f"{run.rows_drift:,} rows left undone on purpose" if run.rows_drift else "",
        "opened": shown(run.opened_at),
        "ended": f"{shown(run.finished_at)}{lasted}" if run.finished_at else "",
        "error": f"{run.error_code}: {run.error}" if run.error else "",
        "report": run.report or "",
    }
    return [(name, value) for name, value in facts.items() if value]


def steps_table(now: Snapshot) -> Table:
    columns = ["step", "kind", "state", "rows", "of", "late", "chunks", "of", "progress", "time"]
    return table(
        columns,
        (
            (
                step.step,
                step.kind,
                step.state,
                step.rows_done if step.kind == "update" else None,
                step.rows_total if step.kind == "update" else None,
                step.rows_late if step.kind == "update" else None,
                step.chunks_done,
                step.chunks,
                percent(step.progress),
                duration(step, now),
            )
            for step in now.steps
        ),
        right=("rows", "of", "late", "chunks", "progress", "time"),
    )


def findings_table(now: Snapshot) -> list[RenderableType]:
    """The checks that found rows, where there are any; which rows, only the database says."""
    if not now.findings:
        return []
    found = table(
        ("check", "severity", "rows", "what must hold"),
        ((row.name, row.severity, row.row_count, row.description) for row in now.findings),
        right=("rows",),
    )
    return [Text("\nchecks that found rows; the first keys of each are in sluice.finding"), found]


def duration(step: Any, now: Snapshot) -> str:
    if step.started_at is None:
        return ""
    end = step.finished_at or now.run.finished_at
    return since(step.started_at) if end is None else seconds((end - step.started_at).total_seconds())
