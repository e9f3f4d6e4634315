"""Runs of one job after another on one table, disturbed until enough invocations were killed."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg2

from infra.local.stack import LocalStack
from sluice.context import Context
from sluice.databases.postgres import Postgres
from sluice.job import Job
from sluice.job_file import read_job
from sluice.ledger import migrate
from tests.chaos.account import Account, RunRow, compare, compare_ledger, listed, runs_of, tell
from tests.chaos.actors import (
    Actor,
    Finisher,
    Freezer,
    Killer,
    Operator,
    Repeater,
    Resetter,
    Scene,
    Stopper,
    Terminator,
)
from tests.chaos.application import Application, fill
from tests.chaos.arena import arena, invocations_killed, run_sql
from tests.connections import facts_of

HERE = Path(__file__).parent
MODES = ("visible", "fused", "run")
CLOCK_SPEED = 50.0
SLOW = 6.0
MOST_EXECUTIONS = 200
RUN_SECONDS = 300.0


@dataclass(frozen=True)
class Result:
    """What a campaign found."""

    account: Account
    kills: int
    text: str

    @property
    def verdict(self) -> str:
        """One line: what was lost or done twice, and anything else that is wrong."""
        wrong = "".join(f", {n} {name}" for name, n in self.account.problems.items() if n)
        return f"{self.account.lost} lost, {self.account.twice} twice{wrong} in {self.kills} kills"


def chaos(*, kills: int, seed: int, rows: int, say: Callable[[str], None] = print) -> Result:
    """Disturb runs of Sluice until that many invocations were killed; compare everything."""
    with arena(HERE / "pack", clock_speed=CLOCK_SPEED) as stack:
        jobs = {mode: read_job(HERE / "pack" / f"{mode}.job.yaml") for mode in MODES}
        prepare_ledger(stack, jobs["visible"])
        prepare(stack, rows, seed, HERE / "sluice_view.sql")
        scene = Scene(stack, seed)
        actors = [*monkey(scene, rows, kills), Operator(scene, every=4 if kills >= 100 else 2.5)]
        work(scene, actors, kills, say, lambda number: jobs[MODES[number % len(MODES)]])
        account = compare(stack.dsn)
        compare_ledger(stack.dsn, account, scene.answers)
        killed = {f"killed in {name}": n for name, n in invocations_killed(stack.pool).items()}
        text = tell(stack.dsn, account, {**scene.counts, **killed}, executions_by_status(scene))
        return Result(account, invocations_killed(stack.pool).total(), text)


def control(*, kills: int, seed: int, rows: int, say: Callable[[str], None] = print) -> Result:
    """The same for the first design, without the operator, whom it does not know.

    One execution at a time: two would do every row twice without any monkey.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sluice-naive-") as functions,
        arena(HERE / "pack", clock_speed=CLOCK_SPEED, functions=first_design(Path(functions))) as stack,
    ):
        prepare(stack, rows, seed, HERE / "naive" / "schema.sql")
        scene = Scene(stack, seed)
        scene.at_once = 1
        work(scene, monkey(scene, rows, kills), kills, say, lambda number: None)
        account = compare(stack.dsn)
        times = [f"run {run_id}: {listed(applied)}" for run_id, applied in account.applied.items()]
        return Result(account, invocations_killed(stack.pool).total(), "\n".join(times))


def first_design(folder: Path) -> Path:
    """The first design's functions in the folders that the template names."""
    for name in ("validate_config", "get_chunks", "process_chunk", "finish_run"):
        (folder / name).mkdir()
        shutil.copy(HERE / "naive" / "first_design.py", folder / name)
        (folder / name / "app.py").write_text(f"from first_design import {name} as lambda_handler\n")
    return folder


def monkey(scene: Scene, rows: int, kills: int) -> list[Actor]:
    """Everyone who disturbs either design; a short campaign leaves out what takes half a minute."""
    return [
        Application(scene, rows),
        Killer(scene),
        Finisher(scene),
        Terminator(scene),
        Freezer(scene, long=2 if kills >= 100 else 0),
        Repeater(scene),
        Resetter(scene),
        Stopper(scene),
    ]


def prepare(stack: LocalStack, rows: int, seed: int, view: Path) -> None:
    """Make the table, what the harness reads, and the first rows."""
    with closing(psycopg2.connect(stack.dsn)) as connection, connection, connection.cursor() as cursor:
        for path in (HERE / "schema.sql", view):
            cursor.execute(path.read_text())
        fill(connection, rows, seed)


def prepare_ledger(stack: LocalStack, job: Job) -> None:
    """The ledger's schema, so that a view can be made over it."""
    database = Postgres(lambda force: facts_of(stack.dsn))
    with closing(database), Context(job, database).transaction("chaos") as transaction:
        migrate(transaction)


def work(
    scene: Scene, actors: list[Actor], kills: int, say: Callable[[str], None], job_of: Callable[[int], Job | None]
) -> None:
    """One run after another until enough invocations were killed, each mode's run its share of them."""
    started = time.monotonic()
    for actor in actors:
        actor.start()
    number = 0
    try:
        while number == 0 or invocations_killed(scene.stack.pool).total() < kills:
            share = kills * (number + 1) / len(MODES)
            run = one_run(scene, actors, share, f"chaos-{number + 1}", job_of(number))
            number += 1
            killed = invocations_killed(scene.stack.pool).total()
            say(f"{time.monotonic() - started:5.0f} s  run {run.run_id}: {run.state}, {killed} of {kills} kills")
    finally:
        for actor in actors:
            actor.over.set()
        for actor in actors:
            actor.stop()


def one_run(scene: Scene, actors: list[Actor], kills: float, run_key: str, job: Job | None) -> RunRow:
    """Keep enough executions of one run going until it has succeeded and none of them is left; gives the run.

    Once there were so many kills in all, the monkey grows slow, so that the run comes to its end.
    """
    states = scene.stack.client("stepfunctions")
    text = json.dumps({"job": job.name if job else "naive", "run_key": run_key})
    mine: list[str] = []
    end = time.monotonic() + RUN_SECONDS
    while True:
        run = find(scene, run_key)
        with scene.lock:
            scene.run_id, scene.job = (run.run_id, job) if run and run.finished_at is None else (None, None)
            scene.slowness = 1.0 if invocations_killed(scene.stack.pool).total() < kills else SLOW
        alive = [arn for arn in mine if states.describe_execution(executionArn=arn)["status"] == "RUNNING"]
        if run is not None and run.state == "succeeded" and not alive:
            return run
        if run is None or (run.state != "succeeded" and run.desired != "pause"):
            for _ in range(scene.at_once - len(alive)):
                arn = states.start_execution(stateMachineArn=scene.stack.state_machine_arn, input=text)["executionArn"]
                mine.append(arn)
                scene.executions.append(arn)
        if time.monotonic() > end or len(mine) > MOST_EXECUTIONS:
            raise AssertionError(f"run {run_key} does not end: {run}, {len(mine)} executions; {causes(scene, mine)}")
        for actor in actors:
            if actor.broken is not None:
                actor.stop()
        time.sleep(0.05)


def find(scene: Scene, run_key: str) -> RunRow | None:
    return next((run for run in runs_of(scene.stack.dsn) if run.run_key == run_key), None)


BUSY = "SELECT application_name, state, wait_event, query_start FROM pg_stat_activity WHERE application_name <> ''"


def causes(scene: Scene, arns: list[str]) -> str:
    """Who is at work in the database, and how the latest executions ended."""
    found = [str(run_sql(scene.stack.dsn, BUSY))]
    for arn in arns[-5:]:
        with suppress(Exception):
            described = scene.stack.client("stepfunctions").describe_execution(executionArn=arn)
            found.append(f"{described['status']} {described.get('error', '')} {described.get('cause', '')}")
    return "; ".join(found)


def executions_by_status(scene: Scene) -> Counter[str]:
    """Executions by how they ended, failed ones with the error's name."""
    states = scene.stack.client("stepfunctions")
    described = [states.describe_execution(executionArn=arn) for arn in scene.executions]
    return Counter(f"{each['status'].lower()} {each.get('error', '')}".strip() for each in described)
