"""Invariants I1 to I26 of the update protocol under random interleavings on a real PostgreSQL.

Sessions (executions, workers, planners, operators, the application) stop before every statement, before every COMMIT
and after it; the machine decides who goes on, who dies, whose line is cut and whose session is terminated, and looks
after every step.

Where each is checked:
I1, I3, I5, I6, I7, I8, I9, I10, I12, I13, I18, I24, I26 (at most 100): audit.INVARIANTS, after every step here.
I4, I14, I15: `Protocol.committed`, at every commit of a worker.
I11, I26 (never falls): `Protocol.sound`. I20, I23, I25: `Protocol.teardown`.
I2: test_planner. I16: test_crash_points, which also checks I1, I7, I8 and I10.
I21: I3 here with resets among the rules; redo: `test_i21_redo_applies_each_row_once_more`.
I17 (time budget), I19 (canary) and I22 (dry run): the tests of the local stack, of chaos and of the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import psycopg2
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from infra.local.postgres import Postgres as Server
from sluice import operate
from sluice.attempts import Outcome
from sluice.context import Context
from sluice.databases.postgres import Postgres
from sluice.errors import BadInputError, LedgerError, SluiceError, StatementError, TargetBusyError
from sluice.finish import Problem, finish_run
from sluice.ledger import Ledger
from sluice.run import open_run, plan_round, work_chunk
from sluice.sqltext import to_driver
from sluice.steps.update_sql import Bounds
from sluice.steps.update_target import update_sql
from tests.sql.audit import AUDIT, INVARIANTS, WATCH_CHUNKS
from tests.sql.crash_world import World
from tests.sql.faults import COMMITTED, Crash
from tests.sql.harness import run_to_end, work_off
from tests.sql.stepping import Actor, settle

MOST_ACTORS = 5
THOROUGH = bool(os.environ.get("SLUICE_THOROUGH"))
PROFILE = settings(
    max_examples=3000 if THOROUGH else 60,
    stateful_step_count=60 if THOROUGH else 40,
    derandomize=not THOROUGH,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
CHANGES = {
    "insert": """INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
                 SELECT max("ID") + 1, date '2025-01-01' + :n % 4, '900-00-000' || :n % 8, 5 FROM public.visits""",
    "change": 'UPDATE public.visits SET "Minutes" = "Minutes" + 1 WHERE "ID" = :n',
    "delete": 'DELETE FROM public.visits WHERE "ID" = :n',
    "re-key": """UPDATE public.visits SET "VisitDate" = date '2025-01-01' + (:n + 1) % 4, "SSN" = '900-00-0003'
                 WHERE "ID" = :n""",
    "re-key to NULL": 'UPDATE public.visits SET "SSN" = NULL WHERE "ID" = :n',
}
READS_RUN = "SELECT run.run_id, run.job, run.run_key"
# The first chunks most of the time, so that sessions meet there.
numbers = st.integers(0, 1) | st.integers(0, 9)
HAND_RESET = 'UPDATE public.visits SET "UpdateFlag" = NULL WHERE "UpdateFlag" = 1'


@dataclass
class Watched:
    """What the machine remembers of an actor's open transaction."""

    actor: Actor
    kind: str
    seen: int = 0
    desired: str = "run"
    generation: int = 0
    app_clock: int = 0
    change_id: int = 0
    transitions: int = 0


class Protocol(RuleBasedStateMachine):
    """The run of one small job, with everybody interfering."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.actors: list[Watched] = []
        self.faults = 0
        self.app_clock = 0
        self.last_progress = (0, 0)
        self.rows_of: dict[int, set[int]] = {}

    @initialize(mode=st.sampled_from(["visible", "visible", "fused", "run"]), late=st.sampled_from(["sweep", "report"]))
    def begin(self, mode: str, late: str) -> None:
        world = self.world
        world.begin(mode, late=late)
        world.sql(WATCH_CHUNKS)
        world.sql("TRUNCATE audit.change, audit.transition")
        self.run_id = open_run(world.context(), "one", {}).run.run_id
        plan_round(world.context(), self.run_id)

    # What can be started.

    @rule(number=numbers)
    def work(self, number: int) -> None:
        number = self.existing(number)
        self.start("work", lambda context: self.answer(number, work_chunk(context, self.run_id, "double", number)))

    @rule()
    def execute(self) -> None:
        """Another execution of the run: it attaches, and works what it is given."""
        self.start("work", self.execution)

    @rule(whole=st.booleans())
    def plan(self, whole: bool) -> None:
        self.start("plan", lambda context: plan_round(context, self.run_id), whole)

    @rule(whole=st.booleans(), problem=st.sampled_from([None, Problem("States.Timeout", "late")]))
    def finish(self, whole: bool, problem: Problem | None) -> None:
        self.start("operate", lambda context: finish_run(context, self.run_id, problem), whole)

    @rule(verb=st.sampled_from(["pause", "resume", "reset", "reset", "cancel"]), whole=st.booleans())
    def operate(self, verb: str, whole: bool) -> None:
        verbs: Mapping[str, Callable[[Context], object]] = {
            "pause": lambda context: operate.pause(context, self.run_id, "p"),
            "resume": lambda context: operate.resume(context, self.run_id),
            "reset": lambda context: operate.reset(context, self.run_id, "r"),
            "cancel": lambda context: operate.cancel(context, self.run_id, "c"),
        }
        self.start("operate", verbs[verb], whole)

    @rule(verb=st.sampled_from(["split", "split", "skip", "retry", "slow"]), number=numbers, whole=st.booleans())
    def operate_on(self, verb: str, number: int, whole: bool) -> None:
        number = self.existing(number)
        verbs: Mapping[str, Callable[[Context], object]] = {
            "split": lambda context: operate.split(context, self.run_id, "double", number),
            "skip": lambda context: operate.skip(context, self.run_id, "double", number, "s"),
            "retry": lambda context: operate.retry(context, self.run_id, "double", number),
            "slow": lambda context: self.timed_out_twice(number),
        }
        self.start("operate", verbs[verb], whole)

    @rule(change=st.sampled_from(sorted(CHANGES)), number=st.integers(1, 60))
    def open_app_transaction(self, change: str, number: int) -> None:
        self.start("app", lambda context: self.app_transaction(context, change, number))

    # What happens to who was started.

    @rule(which=st.integers(0, 4), steps=st.integers(1, 8))
    def advance(self, which: int, steps: int) -> None:
        for _ in range(steps):
            self.tell(which, "go")

    @rule(which=st.integers(0, 4), transactions=st.integers(1, 4))
    def commit(self, which: int, transactions: int) -> None:
        """To the end of so many transactions, unless somebody is in its way."""
        if chosen := self.chosen(which):
            self.run_out(chosen, transactions)

    @rule(which=st.integers(0, 4))
    def end_one(self, which: int) -> None:
        if chosen := self.chosen(which):
            self.run_out(chosen)

    @rule(which=st.integers(0, 4), how=st.sampled_from(["gone", "cut", "pg_terminate_backend", "pg_cancel_backend"]))
    def disturb(self, which: int, how: str) -> None:
        if not self.actors:
            return
        self.faults += 1
        if how in ("gone", "cut"):
            self.tell(which, how)
        else:
            self.world.sql(f"SELECT {how}(%s)", self.actors[which % len(self.actors)].actor.pid)
            self.rest()

    # What happens at once.

    @rule(change=st.sampled_from([*sorted(CHANGES), None, None]), number=st.integers(1, 60))
    def change(self, change: str | None, number: int) -> None:
        """The application changes a row, or somebody clears all flags by hand."""
        self.at_once(to_driver(CHANGES[change]) if change else HAND_RESET, {"n": number})

    @rule()
    def other_run(self) -> None:
        """I12: while the run is active, no other one starts on its target."""
        if self.world.sql("SELECT state::text FROM sluice.run") == [("running",)]:
            with pytest.raises(SluiceError) as error:
                open_run(self.world.context(), "two", {})
            assert isinstance(error.value, TargetBusyError) or self.actors

    # What the rules are made of.

    def start(self, kind: str, verb: Callable[[Context], object], whole: bool = False) -> None:
        """Another session, stopped at its first place, or let run as far as it comes."""
        if len(self.actors) < MOST_ACTORS:
            work = partial(self.with_context, verb)
            started = Watched(Actor(self.world.dsn, kind, work), kind)
            self.actors.append(started)
            self.rest()
            if whole:
                self.run_out(started)

    def run_out(self, watched: Watched, transactions: int = 1000) -> None:
        """Let it go on until its end, or until it waits for somebody, or after so many transactions."""
        while transactions and watched.actor.stands:
            self.let(watched, "go")
            transactions -= watched.actor.place == COMMITTED

    def existing(self, number: int) -> int:
        """A chunk that there is."""
        ((chunks,),) = self.world.sql("SELECT count(*) FROM sluice.chunk")
        return number % int(str(chunks)) + 1

    def with_context(self, verb: Callable[[Context], object], database: Postgres) -> object:
        return verb(Context(self.world.job, database))

    def execution(self, context: Context) -> None:
        run_id = open_run(context, "one", {}).run.run_id
        assert run_id == self.run_id, "I13: a key names one run"
        planned = plan_round(context, run_id)
        for number, _ in planned.chunks:
            with suppress(SluiceError):
                self.answer(number, work_chunk(context, run_id, planned.step, number))

    def answer(self, number: int, outcome: Outcome) -> None:
        if outcome.state == "done":
            self.rows_of.setdefault(number, set()).add(outcome.rows)

    def timed_out_twice(self, number: int) -> None:
        self.world.sql("UPDATE sluice.chunk SET timeouts = 2 WHERE chunk_no = %s", number)

    @staticmethod
    def app_transaction(context: Context, change: str, number: int) -> None:
        with context.transaction("app") as transaction:
            transaction.execute(CHANGES[change], {"n": number})

    def at_once(self, statement: str, values: Mapping[str, object]) -> None:
        """A statement of the application; one that would have to wait is given up."""
        connection = psycopg2.connect(self.world.dsn, options="-c lock_timeout=20")
        try:
            with suppress(psycopg2.errors.LockNotAvailable), connection, connection.cursor() as cursor:
                cursor.execute(statement, values)
                self.app_clock += 1
        finally:
            connection.close()

    def chosen(self, which: int) -> Watched | None:
        standing = [watched for watched in self.actors if watched.actor.stands]
        return standing[which % len(standing)] if standing else None

    def tell(self, which: int, order: str) -> None:
        if chosen := self.chosen(which):
            self.let(chosen, order)

    def let(self, watched: Watched, order: str) -> None:
        actor, sql = watched.actor, self.world.sql
        if actor.begins:
            (now,) = sql(
                "SELECT desired, (SELECT coalesce(max(change_id), 0) FROM audit.change), "
                "(SELECT count(*) FROM audit.transition) FROM sluice.control"
            )
            watched.desired, watched.change_id, watched.transitions = now  # type: ignore[assignment]
            watched.app_clock = self.app_clock
        if actor.statement.startswith(READS_RUN):
            watched.generation = int(str(sql("SELECT generation FROM sluice.run")[0][0]))
        actor.tell(order)
        self.rest()

    def rest(self) -> None:
        """Wait until nobody moves, look at what was committed, forget who has ended."""
        settle([watched.actor for watched in self.actors], self.blocked)
        for watched in self.actors:
            if watched.actor.place == COMMITTED and watched.seen < watched.actor.places:
                self.committed(watched)
            watched.seen = watched.actor.places
            error = watched.actor.error
            if error is not None and not isinstance(error, (SluiceError, psycopg2.Error, Crash)):
                raise error
            if isinstance(error, SluiceError):
                self.allowed(watched, error)
        self.actors = [watched for watched in self.actors if not watched.actor.ended]

    def allowed(self, watched: Watched, error: SluiceError) -> None:
        """No statement of the engine is refused by the database or by the ledger's own rules."""
        state = str(error.facts.get("sqlstate", ""))
        assert state != "40P01", f"I18: {watched.kind}: {error!r}"
        assert not isinstance(error, (StatementError, LedgerError)), f"{watched.kind}: {error!r}"

    def blocked(self, pids: list[int]) -> set[int]:
        rows = self.world.sql("SELECT pid FROM unnest(%s) AS pid WHERE cardinality(pg_blocking_pids(pid)) > 0", pids)
        return {int(str(pid)) for (pid,) in rows}

    def committed(self, watched: Watched) -> None:
        sql, actor = self.world.sql, watched.actor
        if watched.kind == "app":
            self.app_clock += 1
        if watched.kind != "work":
            return
        changed = sql(
            "SELECT count(*) FROM audit.change WHERE pid = %s AND change_id > %s", actor.pid, watched.change_id
        )
        if changed != [(0,)]:
            assert watched.desired == "run", f"I15: changed the target after {watched.desired} was committed"
            (now,) = sql("SELECT generation FROM sluice.run")
            assert now == (watched.generation,), "I14: an attempt of before a reset committed"
        if watched.app_clock == self.app_clock:
            self.nothing_left(actor.pid, watched.transitions)

    def nothing_left(self, pid: int, transitions: int) -> None:
        """I4: a chunk that was just called done has no row to do, unless the application has come between."""
        done = self.world.sql(
            "SELECT chunk.lo, chunk.hi, chunk.is_null FROM (SELECT * FROM audit.transition OFFSET %s) AS new "
            "JOIN sluice.chunk USING (step_no, chunk_no) WHERE new.pid = %s AND new.new_state = 'done'",
            transitions,
            pid,
        )
        for lo, hi, is_null in done:
            assert self.todo(Bounds(lo, hi, is_null)) == 0, "I4: done with rows left"  # type: ignore[arg-type]

    def todo(self, bounds: Bounds | None = None) -> int:
        """Rows to do by the engine's own statement."""
        context = self.world.context()
        with context.transaction() as transaction:
            run = Ledger(transaction).run(self.run_id)
            statements = update_sql(context, transaction, context.job.spec.steps[0], run)  # type: ignore[arg-type]
            values = {"run_ts": run.run_ts, "run_id": run.run_id, **(bounds.values() if bounds else {})}
            return int(transaction.row(statements.statement("count_todo", bounds), values).n)

    @invariant()
    def sound(self) -> None:
        if not hasattr(self, "run_id"):
            return
        self.world.close_contexts()
        broken = self.world.named(INVARIANTS, marks=self.world.mode != "fused")
        assert broken == []
        assert all(len(rows) == 1 for rows in self.rows_of.values()), f"I11: {self.rows_of}"
        ((total, progress),) = self.world.sql("SELECT rows_total, progress FROM sluice.step_status")
        last_total, last_progress = self.last_progress
        assert progress >= last_progress or total > last_total, f"I26: {progress=} {last_progress=}"  # type: ignore[operator]
        self.last_progress = (total, progress)  # type: ignore[assignment]

    def teardown(self) -> None:
        if not hasattr(self, "run_id"):
            return
        try:
            while self.actors:
                self.tell(0, "go")
                self.rest()
            self.sound()
            self.end_of_all()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave no session behind, also where the machine failed."""
        while self.actors:
            for watched in self.actors:
                if watched.actor.stands:
                    watched.actor.tell("gone")
            self.actors = [watched for watched in self.actors if not watched.actor.ended]
        self.world.hang_up()

    def end_of_all(self) -> None:
        was_final = self.world.sql("SELECT state::text LIKE 'succeeded%' FROM sluice.run") == [(True,)]
        self.end()
        self.sound()
        if not was_final:
            self.account()
        before = self.world.sql('SELECT xmin::text, ctid::text, * FROM public.visits ORDER BY "ID"')
        run_to_end(self.world.context())
        assert self.world.sql('SELECT xmin::text, ctid::text, * FROM public.visits ORDER BY "ID"') == before, "I20"

    def end(self) -> None:
        """An operator and further executions bring the run to its end."""
        context = self.world.context()
        for _ in range(4):
            with suppress(BadInputError):
                operate.resume(context, self.run_id)
            work_off(context, self.run_id)
            if finish_run(context, self.run_id).state.startswith("succeeded"):
                return
        raise AssertionError("the run does not end")

    def account(self) -> None:
        """I23 and I25: what is left undone is listed as drift; only faults count as failures."""
        ((state, drift, skipped),) = self.world.sql(
            "SELECT state::text, (SELECT sum(drift_rows) FROM sluice.step), "
            "(SELECT count(*) FROM sluice.chunk WHERE state = 'skipped') FROM sluice.run"
        )
        assert self.todo() == drift, "I23: the residual is listed as drift"
        assert (state == "succeeded") == (drift == 0 and skipped == 0), "I23: drift shows in the state"
        failed = "SELECT attempts_failed FROM sluice.run_status"
        ((failures,),) = self.world.sql(failed)
        assert failures <= self.faults, f"I25: {failures} failures of {self.faults} faults"  # type: ignore[operator]
        wrong = 'SELECT count(*) FROM public.visits WHERE "applied" > 1 OR "UpdateFlag" IS NOT NULL'
        assert self.world.sql(wrong) == [(0,)], "I3, I6"


@pytest.fixture(scope="module")
def world(postgres: Server, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    dsn = postgres.create_database("invariants", template=template_database)
    world = World(dsn, tmp_path_factory.mktemp("packs"))
    world.sql(AUDIT)
    yield world
    world.close()
    postgres.drop_database("invariants")


def test_the_protocol_under_random_interleavings(world: World) -> None:
    Protocol.world = world
    run_state_machine_as_test(Protocol, settings=PROFILE)


def test_i21_redo_applies_each_row_once_more(world: World) -> None:
    world.begin("visible")
    for times, key in enumerate(("one", "two"), start=1):
        assert run_to_end(world.context(), key).state == "succeeded"
        assert world.sql('SELECT min("applied"), max("applied") FROM public.visits') == [(times, times)]
