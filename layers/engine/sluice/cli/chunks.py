"""`chunks`: the parts of a run."""

from __future__ import annotations

import click

from sluice.cli.access import Found
from sluice.cli.options import as_json, with_run
from sluice.cli.output import as_dict, emit, say, table
from sluice.errors import BadInputError, did_you_mean

STATES = ("open", "planned", "marked", "done", "split", "quarantined", "skipped")


@click.command()
@click.option("--state", type=click.Choice(STATES), help="open is planned or marked. Default: all but split ones.")
@click.option("--step", help="Only chunks of this step.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Chunks to list.")
@as_json
@with_run
def chunks(found: Found, state: str | None, step: str | None, limit: int, as_json: bool) -> None:
    """List the chunks of RUN: their state, rows, attempts, who is at work, and what went wrong last.

    Their bounds are key values and stay in the database, in sluice.chunk.
    """
    run_id = found.run.run_id
    with found.place.ledger() as ledger:
        names = [row.name for row in ledger.steps(run_id)]
        if step is not None and step not in names:
            hint = did_you_mean(step, names)
            raise BadInputError(f"run {run_id} has no step '{step}'{hint}; its steps: {', '.join(names)}")
        rows = ledger.rows("list_chunks", run_id=run_id, step=step, state=state, most=limit + 1)
    more, rows = len(rows) > limit, rows[:limit]
    if as_json:
        return emit([as_dict(row) for row in rows])
    if not rows:
        return say("no such chunks")
    columns = ("step", "chunk", "state", "rows", "of", "rounds", "attempts", "at work since", "last", "error")
    say(
        table(
            columns,
            (
                (
                    row.step,
                    row.chunk_no,
                    row.state,
                    row.rows_done,
                    row.rows_planned,
                    row.rounds,
                    row.attempts,
                    row.attempt_since if row.at_work else "gone" if row.at_work is False else None,
                    row.last_code,
                    row.last_error,
                )
                for row in rows
            ),
            right=("chunk", "rows", "of", "rounds", "attempts"),
        )
    )
    if more:
        say(f"… and more: --limit shows more than {limit}")


COMMANDS = (chunks,)
