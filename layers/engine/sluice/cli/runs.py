"""`run`, `redo` and `resume`: starting runs, through Step Functions or in this process."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from sluice import operate
from sluice.cli.access import Access, Found, Place
from sluice.cli.executions import Execution
from sluice.cli.follow import Display, follow
from sluice.cli.inline import InlineRun
from sluice.cli.options import as_json, how_to_work, params, parse_params, run_key, with_access, with_run
from sluice.cli.output import emit, fate, notice, say
from sluice.cli.reports import write_report
from sluice.cli.snapshot import Snapshot, panel, take
from sluice.context import Context
from sluice.errors import BadInputError, SluiceError
from sluice.job import Job
from sluice.job_file import load_job
from sluice.ledger import Run, is_current
from sluice.run import Opened, open_run
from sluice.settings import settings

INTERRUPTED = 130
REDO = re.compile(r"-redo(\d+)$")


@dataclass(frozen=True)
class How:
    """How a run is worked and shown."""

    as_json: bool
    inline: bool
    threads: int | None
    detach: bool
    report_folder: Path
    accept_changes: bool = False

    def __post_init__(self) -> None:
        if self.detach and self.inline:
            raise BadInputError("--detach leaves a run to Step Functions; an --inline run ends with this process")
        if self.threads is not None and not self.inline:
            raise BadInputError("--threads belongs to --inline; an execution takes the job's max_concurrency")


@click.command()
@click.argument("job")
@run_key
@params
@click.option("--accept-changes", is_flag=True, help="Finish the run with the job file and SQL as they are now.")
@how_to_work
@as_json
@with_access
def run(access: Access, job: str, run_key: str, params: Sequence[str], **how: Any) -> None:
    """Start the run of JOB that RUN_KEY names, or take it up again, and watch it until it ends.

    The run is an execution of the state machine that SLUICE_STATE_MACHINE_ARN names; with --inline it is worked by
    threads of this process. Ctrl-C leaves an execution running, and stops an inline run so that the same command
    takes it up again.
    """
    spec = load_job(job)
    launch(access, spec, run_key, spec.bind(parse_params(params)), How(**how))


@click.command()
@how_to_work
@as_json
@with_run
def redo(found: Found, **how: Any) -> None:
    """Do everything of RUN once more: a new run with the same parameters.

    Its key is RUN's with -redo1, -redo2, … behind it.
    """
    job = load_job(found.run.job)
    base = REDO.sub("", found.run.run_key)
    with found.place.ledger() as ledger:
        taken = [row.run_key for row in ledger.rows("taken_keys", job=job.name, start=f"{base}-redo")]
    numbers = [int(match[1]) for key in taken if (match := REDO.search(key)) and REDO.sub("", key) == base]
    launch(found.access, job, f"{base}-redo{max(numbers, default=0) + 1}", found.run.params, How(**how))


@click.command()
@how_to_work
@as_json
@with_run
def resume(found: Found, **how: Any) -> None:
    """Let RUN go on after a pause, a failure or a cancellation, and start it again.

    Where no state machine is named and --inline is not given, the run is only set free.
    """
    chosen = How(**how)
    freed = operate.resume(found.context, found.run.run_id)
    if chosen.inline or settings().state_machine_arn:
        launch(found.access, found.context.job, freed.run_key, freed.params, chosen)
    elif chosen.as_json:
        emit({"run_id": freed.run_id, "job": freed.job, "run_key": freed.run_key, "state": freed.state})
    else:
        say(f"run {freed.run_id} may go on: `sluice run {freed.job} --run-key {freed.run_key}` works it")


def launch(access: Access, job: Job, key: str, params: Mapping[str, Any], how: How) -> None:
    """Work the run as asked for, show it, and end this process with its fate."""
    if how.inline:
        work_inline(access, job, key, params, how)
    else:
        work_by_execution(access, job, key, params, how)


def work_inline(access: Access, job: Job, key: str, params: Mapping[str, Any], how: How) -> None:
    """Open the run, drive it here, write its report to a folder."""
    place = Place(access.address(job), access.database(job))
    context = Context(job, place.database)
    opened = open_run(context, key, params, accept_changes=how.accept_changes)
    tell_opened(opened)
    if opened.run.is_final:
        return conclude(look(place, opened.run), how)
    # A service manager says TERM where a person types Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    publish = partial(write_report, folder=how.report_folder)
    driver = InlineRun(access, job, opened.run, how.threads, publish).start()
    display = Display(quiet=how.as_json)
    try:
        now = follow(place, lambda: opened.run.run_id, driver, display)
    except KeyboardInterrupt:
        stop_inline(driver, opened.run)
        now = look(place, opened.run)
    except BaseException:
        driver.stop()
        raise
    if driver.error is not None:
        raise driver.error
    if now is None:
        raise SluiceError("the ledger cannot be read: `sluice status` shows how the run ended once it can")
    conclude(now, how, drawn=display.is_drawn)


def stop_inline(driver: InlineRun, run: Run) -> None:
    """Stop the run after a Ctrl-C; returns only where it had come to its end before."""
    notice("sluice: stopping; what is open is rolled back (Ctrl-C again does not wait for it)")
    try:
        driver.stop()
    except KeyboardInterrupt:
        # The server rolls back what a connection leaves behind; threads that wait for it would keep the process.
        os._exit(INTERRUPTED)
    if driver.run is None:
        notice(f"sluice: run {run.run_id} is stopped; the same command goes on with it")
        raise click.exceptions.Exit(INTERRUPTED)


def work_by_execution(access: Access, job: Job, key: str, params: Mapping[str, Any], how: How) -> None:
    """Start an execution, and follow the run in the ledger until the execution ends."""
    place = Place(access.address(job), access.database(job))
    if how.accept_changes:
        tell_opened(open_run(Context(job, place.database), key, params, accept_changes=True))
    execution = Execution.start(job.name, key, params)
    if how.detach:
        return tell_started(job, key, execution, how)
    if not how.as_json:
        notice(f"started {execution.arn}")
    display = Display(quiet=how.as_json)
    try:
        now = follow(place, lambda: find_opened(place, job, key), execution, display)
    except KeyboardInterrupt:
        notice(f"sluice: the execution goes on; `sluice watch {job.name}:{key}` shows it again")
        raise click.exceptions.Exit(INTERRUPTED) from None
    problem = execution.problem()
    if problem is not None and (now is None or not now.is_final or isinstance(problem, BadInputError)):
        raise problem
    if now is None:
        return tell_unseen(execution, how)
    conclude(now, how, drawn=display.is_drawn)


def find_opened(place: Place, job: Job, key: str) -> int | None:
    """The run's number once the execution has opened it; the ledger itself may be made by that."""
    with place.ledger() as ledger:
        if not is_current(ledger.transaction):
            return None
        row = ledger.row("find_run", job=job.name, run_key=key)
    return None if row is None else int(row.run_id)


def look(place: Place, opened: Run) -> Snapshot:
    with place.ledger() as ledger:
        return take(ledger, opened.run_id)


def tell_opened(opened: Opened) -> None:
    """What is worth knowing before the work starts."""
    for warning in opened.warnings:
        notice(f"sluice: warning: {warning}")
    if opened.run.is_final:
        notice(
            f"sluice: run {opened.run.run_id} {fate(opened.run.state)} already, nothing is left to do; "
            f"`sluice redo {opened.run.run_id}` does everything once more"
        )
    elif opened.attached:
        notice(f"sluice: run {opened.run.run_id} is taken up again")


def tell_started(job: Job, key: str, execution: Execution, how: How) -> None:
    if how.as_json:
        return emit({"job": job.name, "run_key": key, "execution_arn": execution.arn})
    say(f"started {execution.arn}")
    say(f"`sluice watch {job.name}:{key}` shows it")


def tell_unseen(execution: Execution, how: How) -> None:
    """How a run ended whose ledger could not be read from here, as its execution tells it."""
    state = str(execution.output.get("state"))
    if how.as_json:
        emit(execution.output)
    else:
        say(f"run {execution.output.get('run_id')} {fate(state)}  {execution.output.get('report', '')}".rstrip())
    if not state.startswith("succeeded"):
        raise click.exceptions.Exit(1)


def conclude(now: Snapshot, how: How, *, drawn: bool = False) -> None:
    """Show how the run ended, unless the terminal has it already, and exit by it."""
    if how.as_json:
        emit(now.as_json())
    elif not drawn:
        say(panel(now))
    if now.run.state == "paused":
        notice(f"sluice: run {now.run.run_id} is paused: {now.run.reason}; `sluice resume {now.run.run_id}` goes on")
    if not now.succeeded:
        raise click.exceptions.Exit(1)


COMMANDS = (run, redo, resume)
