"""A crash at every place between two statements of every transaction of every verb, none left out.

After the k-th statement is before the next one, so the places are: before each statement, before COMMIT, after COMMIT.
Each is hit in two ways: the process is gone, and the process lives on with a dead connection (after COMMIT: with the
answer lost). k grows until the verb gets through without a fault, so no place can be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from infra.local.postgres import Postgres
from sluice import operate
from sluice.context import Context
from sluice.errors import BadInputError, DatabaseUnavailableError
from sluice.finish import Problem, finish_run
from sluice.ledger import Run
from sluice.run import open_run, plan_round, work_chunk
from tests.sql.crash_world import World, is_balanced
from tests.sql.faults import COMMITTED, Crash, Fault, WatchedConnection
from tests.sql.harness import run_to_end, work_off

KEY = "one"
Verb = Callable[[Context, int], object]


def begin(world: World) -> tuple[Context, int]:
    """An open run in a context without faults."""
    context = world.context()
    return context, open_run(context, KEY, {}).run.run_id


def at_update(world: World, done: int = 0) -> tuple[Context, int, list[int]]:
    """A run whose update step is planned, with the first chunks done; gives the numbers of the others."""
    context, run_id = begin(world)
    planned = plan_round(context, run_id)
    if planned.step == "prepare":
        work_chunk(context, run_id, "prepare", 1)
        planned = plan_round(context, run_id)
    numbers = [number for number, _ in planned.chunks]
    for number in numbers[:done]:
        work_chunk(context, run_id, "double", number)
    return context, run_id, numbers[done:]


def mark(world: World, run_id: int, chunk_no: int) -> None:
    """Work a chunk until its mark is committed; the worker dies there."""
    marked = []

    def watch(connection: WatchedConnection, place: str, statement: str) -> None:
        if '"UpdateFlag" = 1' in statement and statement.lstrip().startswith("UPDATE"):
            marked.append(statement)
        if marked and place == COMMITTED:
            raise Crash("after the mark")

    with suppress(Crash):
        work_chunk(world.context(watch), run_id, "double", chunk_no)


def opened(world: World) -> None:
    begin(world)


def sql_planned(world: World) -> None:
    plan_round(*begin(world))


def sql_done(world: World) -> None:
    context, run_id = begin(world)
    plan_round(context, run_id)
    work_chunk(context, run_id, "prepare", 1)


def one_chunk_left(world: World) -> None:
    _, _, numbers = at_update(world)
    context, run_id = begin(world)
    for number in numbers[1:]:
        work_chunk(context, run_id, "double", number)


def one_chunk_marked(world: World) -> None:
    one_chunk_left(world)
    mark(world, world.run_id() or 0, 1)


def one_chunk_marked_and_a_row_more(world: World) -> None:
    """A row came to the chunk after its mark, so it takes two rounds."""
    one_chunk_marked(world)
    world.sql(
        """INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
           SELECT 100, "VisitDate", "SSN", 1 FROM public.visits WHERE "UpdateFlag" = 1 LIMIT 1"""
    )


def all_marked(world: World) -> None:
    context, run_id, numbers = at_update(world)
    for number in numbers:
        work_chunk(context, run_id, "double", number)


def marked_and_one_left(world: World) -> None:
    all_marked(world)
    context, run_id = begin(world)
    for number, _ in plan_round(context, run_id).chunks[1:]:
        work_chunk(context, run_id, "double", number)


def chunks_done(world: World) -> None:
    at_update(world, done=9)


def late_rows(world: World) -> None:
    """Rows that came to chunks which are done."""
    one_chunk_left(world)
    context, run_id = begin(world)
    work_off_step(context, run_id, "double")
    world.sql(
        """INSERT INTO public.visits ("ID", "VisitDate", "SSN", "Minutes")
           SELECT 100 + n, '2025-01-01', '900-00-000' || n, n FROM generate_series(1, 5) AS n"""
    )


def work_off_step(context: Context, run_id: int, step: str) -> None:
    """Work rounds of a step until its next plan would find it done."""
    while any(state in ("planned", "marked") for state in states(context, run_id, step)):
        for number, _ in plan_round(context, run_id).chunks:
            work_chunk(context, run_id, step, number)


def states(context: Context, run_id: int, step: str) -> list[str]:
    """The states of a step's chunks."""
    with context.transaction() as transaction:
        rows = transaction.rows("SELECT state::text FROM sluice.chunk_status WHERE step = :step", {"step": step})
        return [row.state for row in rows]


def twice_too_slow(world: World) -> None:
    one_chunk_left(world)
    world.sql("UPDATE sluice.chunk SET timeouts = 2 WHERE chunk_no = 1")


def failed_too_often(world: World) -> None:
    one_chunk_left(world)
    world.sql("UPDATE sluice.chunk SET failures = 5, last_code = '22012' WHERE chunk_no = 1")


def quarantined(world: World) -> None:
    failed_too_often(world)
    plan_round(*begin(world))


def failed(world: World) -> None:
    quarantined(world)
    finish_run(world.context(), world.run_id() or 0)


def cancelled(world: World) -> None:
    one_chunk_marked(world)
    operate.cancel(world.context(), world.run_id() or 0, "wrong day")
    finish_run(world.context(), world.run_id() or 0)


def paused(world: World) -> None:
    one_chunk_marked(world)
    operate.pause(world.context(), world.run_id() or 0, "month end")


def cancel_asked(world: World) -> None:
    one_chunk_marked(world)
    operate.cancel(world.context(), world.run_id() or 0, "wrong day")


def checks_planned(world: World) -> None:
    context, run_id, numbers = at_update(world, done=9)
    assert numbers == [] and plan_round(context, run_id).step == "expect"


def worked_off(world: World) -> None:
    context, run_id = begin(world)
    work_off(context, run_id)


def nothing(world: World) -> None:
    """A database that Sluice has never seen."""


def resumed_to_end(context: Context, run_id: int) -> Run:
    """An operator resumes, then the run is started again."""
    with suppress(BadInputError):
        operate.resume(context, run_id)
    return worked_to_end(context, run_id)


def retried_to_end(context: Context, run_id: int) -> Run:
    """The run fails for its chunk in quarantine and is started again."""
    run = worked_to_end(context, run_id)
    return run if run.state == "succeeded" else opened_to_end(context, run_id)


def worked_to_end(context: Context, run_id: int) -> Run:
    """The execution goes on with its rounds."""
    work_off(context, run_id)
    return finish_run(context, run_id)


def opened_to_end(context: Context, run_id: int) -> Run:
    """The run is started again."""
    return run_to_end(context, KEY)


@dataclass(frozen=True)
class Scene:
    """A moment, the verb that is struck there, and how the run goes on.

    repeat: an operator says it again, for no later round would. undone: rows that are left out on purpose.
    """

    name: str
    before: Callable[[World], None]
    verb: Verb
    mode: str = "visible"
    repeat: bool = False
    to_end: Callable[[Context, int], Run] = worked_to_end
    state: str = "succeeded"
    all_kinds: bool = False


def opening(context: Context, run_id: int) -> object:
    return open_run(context, KEY, {})


def working(step: str, chunk_no: int = 1) -> Verb:
    return lambda context, run_id: work_chunk(context, run_id, step, chunk_no)


def planning(context: Context, run_id: int) -> object:
    return plan_round(context, run_id)


def finishing(context: Context, run_id: int) -> object:
    return finish_run(context, run_id)


def failing(context: Context, run_id: int) -> object:
    return finish_run(context, run_id, Problem("States.Timeout", "the execution took too long"))


SCENES = [
    Scene("open with migrate", nothing, opening, to_end=opened_to_end),
    Scene("open to attach", opened, opening, to_end=opened_to_end),
    Scene("open after a failure", failed, opening, to_end=opened_to_end),
    Scene("plan the sql step", opened, planning, all_kinds=True),
    Scene("plan after the sql step", sql_done, planning, all_kinds=True),
    Scene("plan the first wave", opened, planning),
    Scene("plan the first wave, fixed membership", opened, planning, mode="run"),
    Scene("plan again", one_chunk_left, planning),
    Scene("plan from marking to working", all_marked, planning, mode="run"),
    Scene("plan a late wave", late_rows, planning),
    Scene("plan a late wave, fixed membership", late_rows, planning, mode="run"),
    Scene("plan a split", twice_too_slow, planning),
    Scene("plan a quarantine", failed_too_often, planning, to_end=retried_to_end),
    Scene("plan the checks", chunks_done, planning, all_kinds=True),
    Scene("plan the end", worked_off, planning),
    Scene("work sql", sql_planned, working("prepare"), all_kinds=True),
    Scene("work visible", one_chunk_left, working("double")),
    Scene("work visible, marked", one_chunk_marked, working("double")),
    Scene("work visible, two rounds", one_chunk_marked_and_a_row_more, working("double")),
    Scene("work visible, done", chunks_done, working("double")),
    Scene("work fused", one_chunk_left, working("double"), mode="fused"),
    Scene("work run, marking", at_update, working("double"), mode="run"),
    Scene("work run, applying", marked_and_one_left, working("double"), mode="run"),
    Scene("work a check", checks_planned, working("expect", 1), all_kinds=True),
    Scene("work the definition check", checks_planned, working("expect", 2), all_kinds=True),
    Scene("finish", worked_off, finishing),
    Scene("finish a failure", quarantined, finishing, to_end=retried_to_end),
    Scene("finish an error", one_chunk_marked, failing, to_end=opened_to_end),
    Scene("finish a cancelled run", cancel_asked, finishing, to_end=resumed_to_end),
    Scene("pause", one_chunk_marked, lambda c, r: operate.pause(c, r, "m"), repeat=True, to_end=resumed_to_end),
    Scene("cancel", one_chunk_marked, lambda c, r: operate.cancel(c, r, "m"), repeat=True, to_end=resumed_to_end),
    Scene("resume a paused run", paused, operate.resume, repeat=True),
    Scene("resume a cancelled run", cancelled, operate.resume, repeat=True),
    Scene("resume a failed run", failed, operate.resume, repeat=True),
    Scene("reset", one_chunk_marked, lambda c, r: operate.reset(c, r, "m"), repeat=True),
    Scene("split", one_chunk_marked, lambda c, r: operate.split(c, r, "double", 1), repeat=True),
    Scene("retry", quarantined, lambda c, r: operate.retry(c, r, "double", 1), repeat=True),
    Scene(
        "skip", one_chunk_marked, lambda c, r: operate.skip(c, r, "double", 1, "m"), repeat=True, all_kinds=True,
        state="succeeded_with_drift",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def world(postgres: Postgres, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    dsn = postgres.create_database("crash_points", template=template_database)
    world = World(dsn, tmp_path_factory.mktemp("packs"))
    yield world
    world.close()
    postgres.drop_database("crash_points")


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_fault_at_every_place(world: World, scene: Scene) -> None:
    world.begin(scene.mode, all_kinds=scene.all_kinds, with_ledger=scene.before is not nothing)
    scene.before(world)
    is_balanced(world)
    world.save()
    moments = moments_of(world, scene)
    ended: set[str] = set()
    for how, least in (("gone", 3), ("cut", 4)):
        points = 0
        while struck(world, scene, Fault(how, at=points + 1), moments, ended):
            points += 1
        print(f"{scene.name}, {how}: {points} places")
        assert points >= least


def moments_of(world: World, scene: Scene) -> list[str]:
    """The states that are committed one after the other when nothing fails, the one before the verb first."""
    moments = [world.digest()]

    def watch(connection: WatchedConnection, place: str, statement: str) -> None:
        if place == COMMITTED:
            moments.append(world.digest())

    scene.verb(world.context(watch), world.run_id() or 0)
    return moments


def struck(world: World, scene: Scene, fault: Fault, moments: list[str], ended: set[str]) -> bool:
    """Let the verb meet the fault, look, go on to the end, look again; whether there was such a place.

    moments: a dead process leaves one of these, the one that its commits have come to. ended: states that were
    already gone on from; the same state has the same end.
    """
    world.restore()
    context = world.context(fault)
    with suppress(Crash, DatabaseUnavailableError):
        scene.verb(context, world.run_id() or 0)
    fault.disarm()
    try:
        state = world.digest()
        if fault.how == "gone" and fault.fired:
            assert state == moments[fault.commits], "I16: a part of a transaction was committed"
        if state not in ended:
            ended.add(state)
            is_balanced(world)
            # The dead process is replaced; the one that lives on only has its connection made anew.
            ends_well(world, scene, gone_on(world, scene, world.context() if fault.how == "gone" else context))
    except BaseException as error:
        error.add_note(f"{scene.name}: {fault.how} at place {fault.fired}")
        raise
    return fault.fired is not None


def gone_on(world: World, scene: Scene, context: Context) -> Run:
    """What happens after a fault: an operator says it again where no round would, the rest is worked."""
    if scene.repeat:
        with suppress(BadInputError):
            scene.verb(context, world.run_id() or 0)
    return scene.to_end(context, world.run_id() or 0)


def ends_well(world: World, scene: Scene, run: Run) -> None:
    """Every row applied exactly once, or left out on purpose and counted; no flag left."""
    is_balanced(world)
    undone = world.sql("SELECT coalesce(sum(drift_rows), 0) FROM sluice.step")[0][0]
    assert run.state == scene.state
    assert (undone != 0) == (scene.state == "succeeded_with_drift")
    applied = 'SELECT count(*) FILTER (WHERE "applied" = 0), count(*) FILTER (WHERE "applied" > 1) FROM public.visits'
    assert world.sql(applied) == [(undone, 0)]
    assert world.sql('SELECT count("UpdateFlag") FROM public.visits') == [(0,)]
    wrong = 'SELECT count(*) FROM public.visits WHERE "applied" = 1 AND "Doubled" IS DISTINCT FROM 2 * "Minutes"'
    assert world.sql(wrong) == [(0,)]
