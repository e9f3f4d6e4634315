"""What an operator can do to a run: pause, resume, cancel, reset, and retry, skip or split a chunk."""

from __future__ import annotations

import time

from sluice.context import Context
from sluice.databases.postgres import Transaction
from sluice.errors import BadInputError, ChunkBusyError
from sluice.finish import clear_flags
from sluice.ledger import Ledger, Run, StepRow
from sluice.run import check_job, claim_targets, reopen
from sluice.steps import kind_of

RESET_SECONDS = 60.0
OPEN_STATES = ("planned", "marked")


def pause(context: Context, run_id: int, reason: str) -> Run:
    """Let no further transaction change the target; what is under way ends. Takes effect at once."""
    return set_desired(context, run_id, "pause", reason)


def cancel(context: Context, run_id: int, reason: str) -> Run:
    """Like pause, and the next round ends the run as cancelled; what was applied stays applied."""
    return set_desired(context, run_id, "cancel", reason)


def resume(context: Context, run_id: int) -> Run:
    """Let a paused, failed or cancelled run go on; starting it again is the caller's part.

    Raises TargetBusyError where another run has taken the target meanwhile, RunKeyReusedError where the job changed.
    """
    with context.transaction(f"sluice:{run_id}:resume") as transaction:
        ledger = Ledger(transaction)
        ledger.row("lock_run", run_id=run_id)
        run = ledger.run(run_id)
        if run.state.startswith("succeeded"):
            raise BadInputError(f"run {run_id} has {run.state}; `sluice redo` does everything once more")
        if run.is_final:
            check_job(context, run)
            reopen(context, ledger, run)
        ledger.execute("set_desired", run_id=run_id, desired="run", reason=None)
        ledger.event(run_id, "resumed")
        claim_targets(ledger, run)
        return ledger.run(run_id)


def set_desired(context: Context, run_id: int, desired: str, reason: str) -> Run:
    """Note what is wanted of a run that has not ended."""
    with context.transaction(f"sluice:{run_id}:{desired}") as transaction:
        ledger = Ledger(transaction)
        ledger.row("share_run", run_id=run_id)
        run = ledger.run(run_id)
        if run.is_final:
            raise BadInputError(f"run {run_id} has ended: {run.state}")
        ledger.execute("set_desired", run_id=run_id, desired=desired, reason=reason)
        ledger.event(run_id, {"pause": "paused", "cancel": "cancel_asked"}[desired], detail=reason)
        return ledger.run(run_id)


def reset(context: Context, run_id: int, reason: str) -> Run:
    """Make every attempt of before now stale, take back what is not done and free the flagged rows.

    Rows that carry the run's stamp stay done. New transactions are held off by a pause while the ones under way end;
    raises ChunkBusyError, with the run left paused, where one does not within a minute.
    """
    set_desired(context, run_id, "pause", f"reset: {reason}")
    end = time.monotonic() + RESET_SECONDS
    while True:
        try:
            return reset_locked(context, run_id, reason)
        except ChunkBusyError:
            if time.monotonic() > end:
                raise


def reset_locked(context: Context, run_id: int, reason: str) -> Run:
    """The reset itself, once no worker's transaction is open."""
    with context.transaction(f"sluice:{run_id}:reset") as transaction:
        ledger = Ledger(transaction)
        ledger.row("lock_run", run_id=run_id)
        ledger.execute("raise_generation", run_id=run_id)
        taken_back = ledger.execute("take_back_planned", run_id=run_id)
        clear_flags(ledger, ledger.run(run_id))
        ledger.execute("set_desired", run_id=run_id, desired="run", reason=None)
        ledger.event(run_id, "reset", n=taken_back, detail=reason)
        return ledger.run(run_id)


def retry(context: Context, run_id: int, step_name: str, chunk_no: int) -> None:
    """Give a chunk in quarantine a new start."""
    with context.transaction(f"sluice:{run_id}:retry") as transaction:
        ledger, step = locked(transaction, run_id, step_name, chunk_no, ("quarantined",))
        move(ledger, step, chunk_no, "planned", "retried by an operator")


def skip(context: Context, run_id: int, step_name: str, chunk_no: int, reason: str) -> None:
    """Leave a chunk's rows undone for good; the run ends with drift."""
    with context.transaction(f"sluice:{run_id}:skip") as transaction:
        ledger, step = locked(transaction, run_id, step_name, chunk_no, (*OPEN_STATES, "quarantined"))
        if step.kind != "update":
            raise BadInputError(f"step '{step_name}' is a {step.kind} step: only chunks of an update can be skipped")
        move(ledger, step, chunk_no, "skipped", reason)


def split(context: Context, run_id: int, step_name: str, chunk_no: int) -> None:
    """Cut a chunk in two at its median key group."""
    with context.transaction(f"sluice:{run_id}:split") as transaction:
        ledger, step = locked(transaction, run_id, step_name, chunk_no, (*OPEN_STATES, "quarantined"))
        if not kind_of(step).split(context, ledger, ledger.run(run_id), step, chunk_no):
            raise BadInputError(f"chunk {chunk_no} of '{step_name}' cannot be split: it holds one key group")


def locked(
    transaction: Transaction, run_id: int, step_name: str, chunk_no: int, states: tuple[str, ...]
) -> tuple[Ledger, StepRow]:
    """The chunk, locked, of a run that has not succeeded and in one of these states."""
    ledger = Ledger(transaction)
    run = ledger.run(run_id)
    if run.state.startswith("succeeded"):
        raise BadInputError(f"run {run_id} has {run.state}")
    step = next((row for row in ledger.steps(run_id) if row.name == step_name), None)
    if step is None:
        raise BadInputError(f"run {run_id} has no step '{step_name}'")
    if not ledger.row("has_chunk", run_id=run_id, step_no=step.step_no, chunk_no=chunk_no).there:
        raise BadInputError(f"step '{step_name}' of run {run_id} has no chunk {chunk_no}")
    chunk = ledger.lock_chunk(run_id, step.step_no, chunk_no)
    if chunk.state not in states:
        raise BadInputError(f"chunk {chunk_no} is {chunk.state}: it must be {' or '.join(states)}")
    return ledger, step


def move(ledger: Ledger, step: StepRow, chunk_no: int, state: str, reason: str) -> None:
    ledger.execute(
        "set_chunk_state", run_id=step.run_id, step_no=step.step_no, chunk_no=chunk_no, state=state, reason=reason
    )
