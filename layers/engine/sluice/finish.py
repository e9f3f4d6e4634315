"""The end of a run: what became of it, written down once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg2 import sql

from sluice.context import Context
from sluice.errors import BadInputError
from sluice.ledger import Ledger, Run, StepRow, template

LONGEST_PROBLEM = 500


@dataclass(frozen=True)
class Problem:
    """Why a run failed: a code and one line."""

    code: str
    text: str


def problem_of(error: Mapping[str, object] | None) -> Problem | None:
    """The problem in what Step Functions caught: `Error`, and in `Cause` a text or the JSON of a Lambda's error.

    The text is one line of at most 500 characters.
    """
    if not error:
        return None
    cause = error.get("Cause") or ""
    try:
        payload = json.loads(str(cause))
    except ValueError:
        payload = None
    message = payload.get("errorMessage") if isinstance(payload, dict) else None
    line = " ".join(str(message or cause).split())
    return Problem(str(error.get("Error") or "UnknownError"), line[:LONGEST_PROBLEM] or "no cause was given")


def finish_run(context: Context, run_id: int, error: Problem | None = None) -> Run:
    """Give the run its final state, clear the flags that are left, release its targets.

    Waits for the transactions of workers that are under way; after an error no other one may start. A run that has
    ended already is left as it is.
    Raises ChunkBusyError where a worker takes longer than the lock timeout, BadInputError where work is left to do.
    """
    if error is not None:
        with context.transaction(f"sluice:{run_id}:finish") as transaction:
            Ledger(transaction).execute("hold_for_finish", run_id=run_id)
    with context.transaction(f"sluice:{run_id}:finish") as transaction:
        ledger = Ledger(transaction)
        ledger.row("lock_run", run_id=run_id)
        run = ledger.run(run_id)
        if run.is_final:
            return run
        state, problem = verdict(ledger, run, error)
        clear_flags(ledger, run)
        ledger.execute(
            "close_run",
            run_id=run_id,
            state=state,
            error_code=problem.code if problem else None,
            error=problem.text if problem else None,
        )
        ledger.execute("release_targets", run_id=run_id)
        ledger.event(run_id, state, detail=problem.text if problem else "")
        return ledger.run(run_id)


def verdict(ledger: Ledger, run: Run, error: Problem | None) -> tuple[str, Problem | None]:
    """The final state and, where it is a failure, the reason."""
    if run.desired == "cancel":
        return "cancelled", Problem("Cancelled", run.reason or "an operator cancelled the run")
    work = ledger.row("unfinished_work", run_id=run.run_id)
    problems = {
        "ChunksQuarantined": (work.quarantined, "in quarantine: `sluice chunks --state quarantined`", "chunk"),
        "CheckFailed": (work.failed_checks, "failed: sluice.finding holds the first keys", "check"),
    }
    for code, (count, text, thing) in problems.items():
        if count:
            return "failed", Problem(code, f"{count} {thing}{'s' if count > 1 else ''} {text}")
    if error is not None:
        return "failed", error
    if run.desired == "finish":
        return "failed", Problem("Interrupted", "another execution of the run met an error")
    if work.steps:
        raise BadInputError(f"run {run.run_id} is not at its end: {work.steps} steps are left")
    broken = ledger.rows("broken_invariants", run_id=run.run_id)
    if broken:
        return "failed", Problem("LedgerError", "; ".join(f"{row.name}: {row.n} exceptions" for row in broken))
    return ("succeeded_with_drift" if work.drift_rows or work.skipped else "succeeded"), None


def clear_flags(ledger: Ledger, run: Run) -> None:
    """A flag means an active run: none may be left when this one ends."""
    targets = {step.target: step for step in ledger.steps(run.run_id) if step.wave >= 0}
    for step in targets.values():
        clear_flags_of(ledger, step)


def clear_flags_of(ledger: Ledger, step: StepRow) -> None:
    """Free the rows of the step's target that are still claimed, and count them."""
    if not step.target or not step.flag:
        return
    statement = template("clear_flags", target=sql.Identifier(*step.target.split(".")), flag=sql.Identifier(step.flag))
    cleared = ledger.transaction.execute(statement)
    if cleared:
        ledger.event(step.run_id, "flags_cleared", step_no=step.step_no, n=cleared, detail=step.target)
