"""The verbs of a run: open it, plan a round, work a chunk, finish it. Nothing here knows Step Functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sluice.attempts import LOST, Attempt, Outcome, attempted, end
from sluice.context import Context
from sluice.databases.postgres import Transaction
from sluice.errors import (
    BadInputError,
    RunCancelledError,
    RunKeyReusedError,
    TargetBusyError,
)
from sluice.finish import clear_flags_of
from sluice.job import UpdateStep
from sluice.ledger import Ledger, Run, StepRow, as_json, migrate
from sluice.steps import Kind, kind_of
from sluice.throttle import reason_to_wait

MOST_CHUNKS_A_ROUND = 10_000
LONGEST_WAIT_SECONDS = 300
UNDEFINED_OBJECTS = ("42P01", "42703", "3F000", "42883")


@dataclass(frozen=True)
class Opened:
    """A run that was opened or attached to, with what will work but slowly."""

    run: Run
    attached: bool
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Round:
    """What is to be done next.

    action: work (the chunks, after wait_seconds), wait (and ask again), stop (an operator paused the run), finish.
    chunks: (number, estimated rows).
    """

    action: str
    step: str = ""
    kind: str = ""
    number: int = 0
    chunks: list[tuple[int, int]] = field(default_factory=list)
    wait_seconds: int = 0
    reason: str = ""


def open_run(context: Context, run_key: str, params: Mapping[str, object], *, accept_changes: bool = False) -> Opened:
    """Open the run of this job and key, or attach to it; a failed run is taken up again.

    Raises BadInputError where the job does not fit the database, TargetBusyError where another run holds a target,
    RunKeyReusedError where the key's run has other parameters or other SQL, RunCancelledError where it was cancelled.
    """
    if not run_key:
        raise BadInputError("run_key is empty: it names the run, for instance a date")
    values = context.job.bind(params)
    with context.transaction("sluice:open") as transaction:
        migrate(transaction)
        warnings = validate(context, transaction, values)
    with context.transaction("sluice:open") as transaction:
        ledger = Ledger(transaction)
        inserted = ledger.row(
            "insert_run",
            job=context.job.name,
            run_key=run_key,
            params=as_json(values),
            job_sha256=context.job.sha256,
        )
        if inserted is not None:
            insert_steps(context, ledger, inserted.run_id)
            run = ledger.run(inserted.run_id)
        else:
            run = attach(context, ledger, run_key, values, accept_changes)
        if not run.is_final:
            claim_targets(ledger, run)
    return Opened(run, attached=inserted is None, warnings=warnings)


def attach(context: Context, ledger: Ledger, run_key: str, values: Mapping[str, object], accept_changes: bool) -> Run:
    """The run that the key names already, taken up again where it failed or where its end was interrupted."""
    run = ledger.run(ledger.row("find_run", job=context.job.name, run_key=run_key).run_id)
    check_same(context, run, values, accept_changes)
    if run.state == "failed":
        reopen(context, ledger, run)
    elif not run.is_final:
        if run.desired == "finish":
            ledger.execute("set_desired", run_id=run.run_id, desired="run", reason=None)
        if accept_changes:
            ledger.execute("change_job", run_id=run.run_id, job_sha256=context.job.sha256)
    return ledger.run(run.run_id)


def insert_steps(context: Context, ledger: Ledger, run_id: int) -> None:
    """The rows of a new run beside its own."""
    ledger.execute("insert_control", run_id=run_id)
    for number, step in enumerate(context.job.spec.steps, start=1):
        target, flag = (step.target, step.flag) if isinstance(step, UpdateStep) else (None, None)
        ledger.execute(
            "insert_step", run_id=run_id, step_no=number, name=step.name, kind=step.kind, target=target, flag=flag
        )
    ledger.event(run_id, "opened")


def check_same(context: Context, run: Run, values: Mapping[str, object], accept_changes: bool) -> None:
    """A run key names one run: the same parameters, and the same SQL unless an operator accepts the change."""
    if run.state == "cancelled":
        raise RunCancelledError(
            f"run '{run.run_key}' of {run.job} was cancelled; `sluice resume` takes it up again, another "
            "run_key starts anew"
        )
    if dict(run.params) != dict(values):
        raise RunKeyReusedError(f"run '{run.run_key}' of {run.job} has other parameters: use another run_key")
    if not accept_changes and not run.state.startswith("succeeded"):
        check_job(context, run)


def check_job(context: Context, run: Run) -> None:
    """A run is worked with the job file and SQL that it was opened with; raises RunKeyReusedError otherwise."""
    if run.job_sha256 != context.job.sha256:
        raise RunKeyReusedError(
            f"the job file or SQL of {run.job} changed since run '{run.run_key}' was opened: use another run_key, or "
            "`sluice run --accept-changes` to finish this run with what is there now"
        )


def reopen(context: Context, ledger: Ledger, run: Run) -> None:
    """Take up a run that ended: chunks in quarantine and failed checks get a new start.

    Raises RunKeyReusedError where a later run has worked a target since: its rows would be taken for undone ones.
    """
    for step in ledger.steps(run.run_id):
        later = ledger.row("later_run_on_target", target=step.target, run_id=run.run_id)
        if later is not None:
            raise RunKeyReusedError(
                f"run '{later.run_key}' of {later.job} (run {later.run_id}) has worked {step.target} since run "
                f"'{run.run_key}' ended: start a new run_key"
            )
    ledger.execute("reopen_run", run_id=run.run_id, job_sha256=context.job.sha256)
    ledger.execute("set_desired", run_id=run.run_id, desired="run", reason=None)
    again = ledger.execute("reopen_quarantined", run_id=run.run_id)
    ledger.execute("ask_again", run_id=run.run_id)
    ledger.execute("reopen_steps", run_id=run.run_id)
    ledger.event(run.run_id, "reopened", n=again)


def claim_targets(ledger: Ledger, run: Run) -> None:
    """Make the run the active one on each of its targets; raises TargetBusyError where another is."""
    for target in sorted({step.target for step in ledger.steps(run.run_id) if step.target}):
        ledger.execute("claim_target", target=target, run_id=run.run_id)
        other = ledger.row("other_run_on_target", target=target, run_id=run.run_id)
        if other is not None:
            raise TargetBusyError(
                f"run '{other.run_key}' of {other.job} (run {other.run_id}) is active on {target}: wait for it, or "
                "`sluice cancel` it"
            )


def validate(context: Context, transaction: Transaction, values: Mapping[str, object]) -> list[str]:
    """Refuse what cannot work before anything is changed; gives warnings. Leaves nothing behind in the transaction.

    What a later step reads may only be made by an earlier `sql` step: a missing object is refused here only where no
    such step comes before, and again when the step is planned.
    """
    warnings: list[str] = []
    made_before = False
    ledger, run = Ledger(transaction), rehearsal_run(context, values)
    for number, spec in enumerate(context.job.spec.steps, start=1):
        step = StepRow(0, number, spec.name, spec.kind, None, None, -1, "work", 0, 0, 0, 0, None, None, None)
        transaction.execute("SAVEPOINT validation")
        try:
            warnings += kind_of(step).validate(context, ledger, run, step)
        except BadInputError as error:
            if not (made_before and error.facts.get("sqlstate") in UNDEFINED_OBJECTS):
                raise
        transaction.execute("ROLLBACK TO SAVEPOINT validation")
        made_before = made_before or spec.kind == "sql"
    return warnings


def rehearsal_run(context: Context, values: Mapping[str, object]) -> Run:
    """A run that is not in the ledger, to compose and rehearse statements with."""
    now = datetime.now(UTC)
    return Run(
        0, context.job.name, "", now, 0, values, context.job.sha256, "running", "run", None, now, None, None, None, None
    )


def plan_round(context: Context, run_id: int) -> Round:
    """What is left to do, read from the database and the ledger."""
    while True:
        with context.transaction(f"sluice:{run_id}:plan") as transaction:
            ledger = Ledger(transaction)
            ledger.row("share_run", run_id=run_id)
            run = attached_run(context, ledger, run_id)
            if run.is_final or run.desired in ("cancel", "finish"):
                return Round("finish")
            if run.desired == "pause":
                return Round("stop", reason=run.reason or "an operator paused the run")
            step = next((step for step in ledger.steps(run_id) if step.finished_at is None), None)
            if step is None:
                return Round("finish")
            planned = plan_step(context, ledger, run, step)
            if planned is not None:
                return planned


def attached_run(context: Context, ledger: Ledger, run_id: int) -> Run:
    """The run, checked to be one of this very job."""
    run = ledger.run(run_id)
    if run.job != context.job.name:
        raise BadInputError(f"run {run_id} is of {run.job}, not of {context.job.name}")
    if not run.is_final:
        check_job(context, run)
    return run


def plan_step(context: Context, ledger: Ledger, run: Run, step: StepRow) -> Round | None:
    """The round of one step; None where the step has just ended."""
    place = {"run_id": run.run_id, "step_no": step.step_no}
    locked = ledger.row("lock_step", **place)
    if locked.finished_at is not None:
        return None
    kind = kind_of(step)
    settle_failures(context, ledger, run, step, kind)
    while True:
        step = ledger.step(run.run_id, step.name)
        marking = step.phase == "mark"
        chunks = ledger.rows("open_chunks", **place, marking=marking, most=MOST_CHUNKS_A_ROUND)
        if chunks:
            return next_round(context, ledger, run, step, [(row.chunk, row.rows) for row in chunks])
        if marking:
            ledger.execute("set_phase", **place, phase="work")
            continue
        if ledger.row("count_obstacles", **place).n:
            return Round("finish")
        if step.wave < 0:
            kind.validate(context, ledger, run, step)
        if not kind.plan(context, ledger, run, step):
            # Rows of a skipped chunk, or late ones that are only reported: the steps that follow find none claimed.
            clear_flags_of(ledger, step)
            ledger.execute("finish_step", **place, drift_rows=kind.drift(context, ledger, run, step))
            return None


def next_round(context: Context, ledger: Ledger, run: Run, step: StepRow, chunks: list[tuple[int, int]]) -> Round:
    """The round over these chunks, held back or delayed where there is a reason to."""
    place = {"run_id": run.run_id, "step_no": step.step_no}
    reason = reason_to_wait(context, ledger, run)
    if reason is not None:
        seconds = ledger.row("set_held", **place, reason=reason).seconds
        wait = min(LONGEST_WAIT_SECONDS, max(5, int(seconds / 4)))
        return Round("wait", step.name, step.kind, step.rounds, wait_seconds=wait, reason=reason)
    setbacks = ledger.row("worst_streak", **place).setbacks
    delay = min(LONGEST_WAIT_SECONDS, 5 * 2 ** (setbacks - 1)) if setbacks else 0
    row = ledger.row("next_round", **place)
    if row.held is not None:
        ledger.event(run.run_id, "held", step_no=step.step_no, n=int(row.held_seconds), detail=row.held)
    return Round("work", step.name, step.kind, row.rounds, chunks, wait_seconds=delay)


def settle_failures(context: Context, ledger: Ledger, run: Run, step: StepRow, kind: Kind) -> None:
    """Count attempts that vanished, split chunks that ran out of time twice, set aside those that will not succeed."""
    place = {"run_id": run.run_id, "step_no": step.step_no}
    ledger.execute("lose_attempts", **place, chunk_no=None, error=LOST)
    for row in ledger.rows("slow_chunks", **place):
        if not kind.split(context, ledger, run, step, row.chunk_no):
            quarantine(ledger, place, row.chunk_no, "one key group exceeds the time that a chunk has")
    most = context.job.spec.attempts
    exhausted = ledger.rows(
        "exhausted_chunks", **place, max_failures=most.max_failures, max_transient=most.max_transient
    )
    for row in exhausted:
        how = "failed" if row.fatal else "failed too often, last"
        quarantine(ledger, place, row.chunk_no, f"{how} with {row.last_code}: {row.last_error}")


def quarantine(ledger: Ledger, place: Mapping[str, int], chunk_no: int, reason: str) -> None:
    """Set a chunk aside until an operator or the next start of the run takes it up."""
    ledger.execute("set_chunk_state", **place, chunk_no=chunk_no, state="quarantined", reason=reason)


def work_chunk(context: Context, run_id: int, step_name: str, chunk_no: int) -> Outcome:
    """One attempt at one chunk. What it did is in the ledger when it returns; the answer only repeats it.

    Raises the engine's errors after they were noted on the chunk.
    """
    with context.transaction(f"sluice:{run_id}:work", durable=False) as transaction:
        ledger = Ledger(transaction)
        run = attached_run(context, ledger, run_id)
        step = ledger.step(run_id, step_name)
        reason = reason_to_wait(context, ledger, run)
        if reason is not None:
            ledger.execute("set_held", run_id=run_id, step_no=step.step_no, reason=reason)
            return Outcome("held", reason=reason)
    attempt = Attempt(run, step, chunk_no)
    with attempted(context, attempt):
        outcome = kind_of(step).work(context, attempt)
    if outcome.state != "done":
        end(context, attempt, outcome.state if outcome.state in ("marked", "stopped") else "settled")
    return outcome
