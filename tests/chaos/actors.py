"""What disturbs a run: each actor a thread with choices of its own, drawn from the seed."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg2

from infra.local.lambda_invocation import TooManyRequestsError
from infra.local.processes import wait_until
from infra.local.stack import LocalStack
from sluice import operate
from sluice.context import Context
from sluice.databases.postgres import Postgres
from sluice.errors import SluiceError
from sluice.job import Job
from tests.chaos.arena import Busy, busy_workers, run_sql
from tests.connections import facts_of

TAKEOVER_SECONDS = 9.0
LONG_FREEZE_SECONDS = 45.0


@dataclass
class Scene:
    """What all actors share. `run_id` is the run that is disturbed now, None between runs.

    at_once: executions of the run that are kept going. slowness: stretches the time between two deeds.
    """

    stack: LocalStack
    seed: int
    at_once: int = 2
    slowness: float = 1.0
    counts: Counter[str] = field(default_factory=Counter)
    answers: list[dict[str, Any]] = field(default_factory=list)
    executions: list[str] = field(default_factory=list)
    run_id: int | None = None
    job: Job | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, name: str, n: int = 1) -> None:
        with self.lock:
            self.counts[name] += n

    def run(self) -> tuple[int, Job] | None:
        """The run that may be disturbed, with its job where it is one of Sluice's."""
        with self.lock:
            return None if self.run_id is None else (self.run_id, self.job)  # type: ignore[return-value]


class Actor(threading.Thread):
    """Acts every now and then, `every` seconds apart on average, until it is told to stop."""

    every = 1.0

    def __init__(self, scene: Scene, *, every: float | None = None) -> None:
        super().__init__(name=type(self).__name__, daemon=True)
        self.scene = scene
        self.every = every or self.every
        self.rng = random.Random(f"{scene.seed} {self.name}")
        self.over = threading.Event()
        self.broken: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.over.wait(self.rng.expovariate(1 / self.every) * self.scene.slowness):
                if self.scene.run() is not None:
                    self.act()
        except BaseException as error:
            self.broken = error
        finally:
            self.leave()

    def act(self) -> None:
        raise NotImplementedError

    def leave(self) -> None:
        """What has to be put in order at the end."""

    def stop(self) -> None:
        """Tell it to stop and wait; raises what broke it."""
        self.over.set()
        self.join()
        if self.broken is not None:
            raise RuntimeError(f"{self.name} broke") from self.broken

    def choose(self, function: str = "") -> Busy | None:
        """A worker that is at work, of that function or of any."""
        found = [each for each in busy_workers(self.scene.stack.pool) if each.function.endswith(function)]
        return self.rng.choice(sorted(found, key=lambda each: each.pid)) if found else None


class Killer(Actor):
    """SIGKILL for a worker at a random moment of its work."""

    every = 0.2

    def act(self) -> None:
        # A planner works seldom: it is waited for.
        planner = self.rng.random() < 0.08
        after = self.rng.uniform(0, 0.03)
        if planner:
            wait_until(lambda: self.over.is_set() or self.choose("get-chunks") is not None, 1, every=0.002)
        victim = (self.choose("get-chunks") if planner else self.choose("process-chunk")) or self.choose()
        if victim is not None:
            time.sleep(after)
            kill(self.scene, victim)


class Finisher(Actor):
    """SIGKILL for every second worker that finishes a run: there are few of them, so none is missed."""

    every = 0.01

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._seen: set[str] = set()

    def act(self) -> None:
        victim = self.choose("finish-run")
        if victim is not None and victim.request_id not in self._seen:
            self._seen.add(victim.request_id)
            if self.rng.random() < 0.5:
                time.sleep(self.rng.uniform(0, 0.08))
                kill(self.scene, victim)


def kill(scene: Scene, victim: Busy) -> None:
    with suppress(ProcessLookupError):
        os.kill(victim.pid, signal.SIGKILL)
        scene.count("kills sent")


class Terminator(Actor):
    """pg_terminate_backend for a session of the engine, most often in the middle of a transaction."""

    every = 0.35

    def act(self) -> None:
        rows = run_sql(
            self.scene.stack.dsn,
            "SELECT pid, state FROM pg_stat_activity WHERE application_name LIKE 'sluice%' ORDER BY pid",
        )
        inside = [pid for pid, state in rows if state != "idle"]
        victims = inside if inside and self.rng.random() < 0.9 else [pid for pid, _state in rows]
        if victims:
            [(told,)] = run_sql(self.scene.stack.dsn, "SELECT pg_terminate_backend(%s)", self.rng.choice(victims))
            self.scene.count("terminations", int(told))


class Freezer(Actor):
    """SIGSTOP for a worker; its chunk is given to another one meanwhile, then SIGCONT.

    Where the frozen worker holds the chunk, `long` times the others wait until the server ends its transaction.
    """

    every = 1.5

    def __init__(self, scene: Scene, *, every: float | None = None, long: int = 0) -> None:
        super().__init__(scene, every=every)
        self.long = long
        self._sleepers: list[threading.Thread] = []

    def act(self) -> None:
        victim = self.choose("process-chunk" if self.rng.random() < 0.85 else "")
        if victim is None:
            return
        time.sleep(self.rng.uniform(0, 0.03))
        with suppress(ProcessLookupError):
            os.kill(victim.pid, signal.SIGSTOP)
            self.scene.count("freezes")
            sleeper = threading.Thread(target=self._while_frozen, args=(victim,), daemon=True)
            self._sleepers.append(sleeper)
            sleeper.start()

    def leave(self) -> None:
        for sleeper in self._sleepers:
            sleeper.join()

    def _while_frozen(self, victim: Busy) -> None:
        try:
            if victim.function.endswith("process-chunk"):
                self._take_over(victim)
            else:
                self.over.wait(2.0)
        except BaseException as error:
            self.broken = error
        finally:
            with suppress(ProcessLookupError):
                os.kill(victim.pid, signal.SIGCONT)

    def _take_over(self, victim: Busy) -> None:
        """Another attempt at the frozen worker's chunk, until one gets through or it has been long enough."""
        end, is_long = time.monotonic() + TAKEOVER_SECONDS, False
        while not (self.over.is_set() and not is_long):
            if deliver_again(self.scene, victim) == "done":
                late = " whose transaction the server had to end" if is_long else ""
                self.scene.count(f"takeovers of frozen workers{late}")
                return
            if time.monotonic() > end:
                if is_long or not self._may_be_long():
                    return
                end, is_long = end + LONG_FREEZE_SECONDS, True
            self.over.wait(0.2)

    def _may_be_long(self) -> bool:
        with self.scene.lock:
            self.long -= 1
            return self.long >= 0


class Repeater(Actor):
    """Delivers an invocation a second time while the first one is at work."""

    every = 0.3

    def act(self) -> None:
        victim = self.choose("process-chunk")
        if victim is not None:
            deliver_again(self.scene, victim)


def deliver_again(scene: Scene, busy: Busy) -> str:
    """Invoke the function with what the worker is working on; gives the state that the answer names."""
    try:
        result = scene.stack.pool.invoke(busy.function, json.dumps(busy.payload).encode(), patience=60)
    except (TooManyRequestsError, TimeoutError):
        return "refused"
    scene.count("second deliveries")
    answer = json.loads(result.payload)
    if result.function_error:
        return str(answer.get("errorType"))
    with scene.lock:
        scene.answers.append({**busy.payload, **answer})
    return str(answer["state"])


class Resetter(Actor):
    """The hand reset of the first design's instructions, of all rows or of some, when there are flagged ones."""

    every = 0.6

    def act(self) -> None:
        share = self.rng.choice([1, 1, 2, 5])
        flagged = 'SELECT FROM chaos.visits WHERE "UpdateFlag" = 1 LIMIT 1'
        wait_until(lambda: self.over.is_set() or bool(run_sql(self.scene.stack.dsn, flagged)), 1)
        statement = """
            WITH freed AS (
                UPDATE chaos.visits SET "UpdateFlag" = NULL WHERE "UpdateFlag" = 1 AND "ID" %% %s = 0 RETURNING 1)
            INSERT INTO chaos.journal (deed, n) SELECT 'freed', count(*) FROM freed RETURNING n"""
        with suppress(psycopg2.OperationalError):
            [(freed,)] = run_sql(with_timeout(self.scene.stack.dsn), statement, share)
            self.scene.count("hand resets")
            self.scene.count("flags cleared by hand", freed)


def with_timeout(dsn: str) -> str:
    """The same database with a limit for lock waits."""
    return f"{dsn}?options=-c%20lock_timeout%3D2s"


class Stopper(Actor):
    """StopExecution for one of the run's executions; its functions work on, and another execution attaches."""

    every = 4.0

    def act(self) -> None:
        states = self.scene.stack.client("stepfunctions")
        running = [
            arn for arn in list(self.scene.executions)
            if states.describe_execution(executionArn=arn)["status"] == "RUNNING"
        ]  # fmt: skip
        if running:
            states.stop_execution(executionArn=self.rng.choice(running), error="Chaos", cause="the monkey")
            self.scene.count("executions stopped")


class Operator(Actor):
    """Pause and resume, or reset, by the engine's own verbs."""

    every = 5.0

    def act(self) -> None:
        run = self.scene.run()
        if run is None:
            return
        run_id, job = run
        database = Postgres(lambda force: facts_of(self.scene.stack.dsn))
        context = Context(job, database)
        verb, length = self.rng.choice(["pause", "reset"]), self.rng.uniform(0.1, 1.0)
        # An operator too may find the run at its end, or a session terminated.
        try:
            with suppress(SluiceError):
                if verb == "pause":
                    operate.pause(context, run_id, "chaos")
                    self.scene.count("pauses")
                    time.sleep(length)
                else:
                    operate.reset(context, run_id, "chaos")
                    self.scene.count("resets")
        finally:
            self._let_run(context, run_id)
            database.close()

    @staticmethod
    def _let_run(context: Context, run_id: int) -> None:
        """Resume until it was heard: a paused run would wait for ever."""

        def heard() -> bool:
            with suppress(SluiceError):
                operate.resume(context, run_id)
                return True
            return operate_is_over(context, run_id)

        if not wait_until(heard, 60):
            raise AssertionError("a paused run could not be resumed in a minute")


def operate_is_over(context: Context, run_id: int) -> bool:
    """Whether the run has succeeded, so that there is nothing to resume."""
    with suppress(SluiceError), context.transaction("chaos") as transaction:
        row = transaction.row("SELECT state::text AS state FROM sluice.run WHERE run_id = :run_id", {"run_id": run_id})
        return str(row.state).startswith("succeeded")
    return False
