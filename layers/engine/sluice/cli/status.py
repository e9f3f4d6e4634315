"""`status`, `watch` and `jobs`: looking without touching."""

from __future__ import annotations

import click

from sluice.cli.access import Access, Found, find_run, places
from sluice.cli.follow import Display, UntilFinal, follow
from sluice.cli.options import as_json, with_access, with_run
from sluice.cli.output import as_dict, emit, fate, notice, percent, say, table
from sluice.cli.snapshot import MOST_STUCK, panel, take
from sluice.errors import SluiceError
from sluice.job_file import load_job

INTERRUPTED = 130


@click.command()
@click.argument("run", metavar="[RUN]", required=False)
@click.option("--job", metavar="JOB", help="Only runs of this job; with a number, whose ledger to look in.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="Runs to list.")
@as_json
@with_access
def status(access: Access, run: str | None, job: str | None, limit: int, as_json: bool) -> None:
    """Show how far RUN is, its steps and the chunks that do not get on; without RUN, list the newest runs."""
    if run is None:
        return list_runs(access, job, limit, as_json)
    found = find_run(access, run, job)
    with found.place.ledger() as ledger:
        now = take(ledger, found.run.run_id)
        stuck = ledger.rows("list_stuck", run_id=found.run.run_id, most=MOST_STUCK)
    if as_json:
        return emit({**now.as_json(), "stuck_chunks": [as_dict(row) for row in stuck]})
    say(panel(now))
    if stuck:
        say("\nchunks that do not get on")
        say(
            table(
                ("step", "chunk", "state", "why", "since", "last error"),
                ((row.step, row.chunk_no, row.state, row.why, row.since, row.last_error) for row in stuck),
                right=("chunk",),
            )
        )


def list_runs(access: Access, job: str | None, limit: int, as_json: bool) -> None:
    """The newest runs of the ledger, or of every ledger that the jobs name."""
    name = load_job(job).name if job else None
    rows, problems = [], []
    for place in places(access, job):
        try:
            place.check()
            with place.ledger() as ledger:
                rows += ledger.rows("recent_runs", job=name, most=limit)
        except SluiceError as error:
            problems.append(error)
    if problems and not rows:
        raise problems[0]
    for problem in problems:
        notice(f"sluice: passed over: {problem}")
    rows.sort(key=lambda row: row.opened_at, reverse=True)
    if as_json:
        return emit([as_dict(row) for row in rows[:limit]])
    if not rows:
        return say("no runs yet")
    columns = ("run", "job", "key", "state", "rows", "of", "progress", "chunks", "of", "opened", "ended")
    say(
        table(
            columns,
            (
                (
                    str(row.run_id),
                    row.job,
                    row.run_key,
                    row.state,
                    row.rows_done,
                    row.rows_total,
                    percent(row.progress),
                    row.chunks_done,
                    row.chunks,
                    row.opened_at,
                    row.finished_at,
                )
                for row in rows[:limit]
            ),
            right=("run", "rows", "of", "progress", "chunks"),
        )
    )


@click.command()
@as_json
@with_run
def watch(found: Found, as_json: bool) -> None:
    """Show RUN as it goes on, until it ends: rows, chunks, rate, time left and what holds it back.

    Draws in place in a terminal, writes a line every few seconds elsewhere, and with --json one document a line.
    Ctrl-C stops looking and nothing else. Exits by the run's fate, as `sluice run` does.
    """
    try:
        now = follow(found.place, lambda: found.run.run_id, UntilFinal(), Display(as_json=as_json))
    except KeyboardInterrupt:
        notice(f"sluice: the run goes on without being watched; `sluice watch {found.run.run_id}` shows it again")
        raise click.exceptions.Exit(INTERRUPTED) from None
    if now is not None and not now.succeeded:
        if now.run.error:
            notice(f"sluice: run {now.run.run_id} {fate(now.run.state)}: {now.run.error}")
        raise click.exceptions.Exit(1)


COMMANDS = (status, watch)
