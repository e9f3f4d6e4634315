"""`pause`, `cancel`, `reset`, and `retry`, `skip`, `split` of a chunk: the operator's word to a run."""

from __future__ import annotations

from contextlib import suppress

import click

from sluice import operate
from sluice.cli.access import Found
from sluice.cli.options import as_json, reason, reason_or_name, with_run
from sluice.cli.output import as_dict, emit, fate, say
from sluice.errors import ChunkBusyError
from sluice.finish import finish_run
from sluice.ledger import Run


@click.command()
@reason
@as_json
@with_run
def pause(found: Found, reason: str | None, as_json: bool) -> None:
    """Let nothing of RUN start any more; transactions under way end.

    Takes effect at once. `sluice resume` goes on.
    """
    paused = operate.pause(found.context, found.run.run_id, reason_or_name(reason))
    tell(paused, f"is paused: {paused.reason}; `sluice resume {paused.run_id}` goes on", as_json)


@click.command()
@reason
@as_json
@with_run
def cancel(found: Found, reason: str | None, as_json: bool) -> None:
    """End RUN: nothing of it starts any more. What was applied stays applied.

    Waits some seconds for transactions that are under way; where they take longer, the run's next round ends it.
    """
    run = operate.cancel(found.context, found.run.run_id, reason_or_name(reason))
    with suppress(ChunkBusyError):
        run = finish_run(found.context, run.run_id)
    tell(run, f"is {'cancelled' if run.is_final else 'being cancelled'}: {run.reason}", as_json)


@click.command()
@reason
@as_json
@with_run
def reset(found: Found, reason: str | None, as_json: bool) -> None:
    """Take back the chunks of RUN that are not done, and free the rows that are claimed.

    Rows that this run has applied stay as they are and are not applied again. Waits up to a minute for transactions
    that are under way.
    """
    reset_run = operate.reset(found.context, found.run.run_id, reason_or_name(reason))
    tell(
        reset_run,
        f"is reset, generation {reset_run.generation}; where nothing works it, "
        f"`sluice run {reset_run.job} --run-key {reset_run.run_key}` does",
        as_json,
    )


def tell(run: Run, text: str, as_json: bool) -> None:
    """The run as it is now, for a program or a person."""
    if as_json:
        return emit(
            {
                "run_id": run.run_id,
                "job": run.job,
                "run_key": run.run_key,
                "state": run.state,
                "desired": run.desired,
                "reason": run.reason,
                "generation": run.generation,
            }
        )
    say(f"run {run.run_id} {text}")


@click.command()
@with_run
@click.argument("step")
@click.argument("chunk", type=click.IntRange(1))
@as_json
def retry(found: Found, step: str, chunk: int, as_json: bool) -> None:
    """Give a CHUNK that is in quarantine a new start.

    A run that has failed takes up all of them when it is started again.
    """
    operate.retry(found.context, found.run.run_id, step, chunk)
    tell_chunk(found, step, chunk, "is planned again", as_json)


@click.command()
@with_run
@click.argument("step")
@click.argument("chunk", type=click.IntRange(1))
@reason
@as_json
def skip(found: Found, step: str, chunk: int, reason: str | None, as_json: bool) -> None:
    """Leave the rows of a CHUNK undone; the run then ends with drift."""
    operate.skip(found.context, found.run.run_id, step, chunk, reason_or_name(reason))
    tell_chunk(found, step, chunk, "is skipped", as_json)


@click.command()
@with_run
@click.argument("step")
@click.argument("chunk", type=click.IntRange(1))
@as_json
def split(found: Found, step: str, chunk: int, as_json: bool) -> None:
    """Cut a CHUNK in two halves at a key group's end."""
    operate.split(found.context, found.run.run_id, step, chunk)
    tell_chunk(found, step, chunk, "is split", as_json)


def tell_chunk(found: Found, step: str, chunk: int, text: str, as_json: bool) -> None:
    """The chunk as it is now, with the parts that a split made of it."""
    with found.place.ledger() as ledger:
        rows = ledger.rows("chunk_and_parts", run_id=found.run.run_id, step=step, chunk_no=chunk)
    whole = next(row for row in rows if row.chunk_no == chunk)
    parts = [row for row in rows if row.parent_no == chunk]
    if as_json:
        return emit({**as_dict(whole), "parts": [as_dict(row) for row in parts]})
    into = " into " + " and ".join(f"{row.chunk_no} ({row.rows_planned:,} rows)" for row in parts) if parts else ""
    say(f"chunk {chunk} of {step} {text}{into}")
    if found.run.is_final:
        again = f"sluice run {found.run.job} --run-key {found.run.run_key}"
        say(f"run {found.run.run_id} {fate(found.run.state)}: `{again}` takes it up")


COMMANDS = (pause, cancel, reset, retry, skip, split)
