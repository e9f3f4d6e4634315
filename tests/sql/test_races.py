"""Two sessions meeting at one exact place: planner, workers and operators never refuse or deadlock each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sluice import operate
from sluice.context import Context
from sluice.errors import StaleGenerationError
from sluice.run import open_run, plan_round, work_chunk
from tests.sql.crash_world import World
from tests.sql.faults import COMMIT
from tests.sql.harness import run_to_end
from tests.sql.stepping import Actor, settle

Verb = Callable[[Context, int], object]
SETS_FLAG = 'SET "UpdateFlag" = 1'
SETS_STATE = "last_error = coalesce("


class Meeting:
    """A planned run, and sessions that are stopped and let go by the statement that they come to."""

    def __init__(self, world: World) -> None:
        self.world = world
        context = world.context()
        self.run_id = open_run(context, "one", {}).run.run_id
        plan_round(context, self.run_id)
        self.actors: list[Actor] = []

    def start(self, verb: Verb, until: str) -> Actor:
        """A session that stands before the first statement that holds the text, or at the place of that name."""
        job = self.world.job
        actor = Actor(self.world.dsn, "actor", lambda database: verb(Context(job, database), self.run_id))
        self.actors.append(actor)
        self.rest()
        while actor.stands and until != actor.place and until not in actor.statement:
            self.go(actor)
        return actor

    def go(self, actor: Actor) -> None:
        """Let it take one step."""
        actor.tell("go")
        self.rest()

    def rest(self) -> None:
        settle(self.actors, self.blocked)

    def blocked(self, pids: list[int]) -> set[int]:
        rows = self.world.sql("SELECT pid FROM unnest(%s) AS pid WHERE cardinality(pg_blocking_pids(pid)) > 0", pids)
        return {int(str(pid)) for (pid,) in rows}

    def end(self) -> None:
        """Let everybody go to the end of what they do; raises what somebody raised."""
        while not all(actor.ended for actor in self.actors):
            for actor in self.actors:
                if actor.stands:
                    self.go(actor)
            self.rest()
        for actor in self.actors:
            if actor.error is not None:
                raise actor.error


@pytest.fixture
def meeting(database: str, tmp_path: Path) -> Iterator[Meeting]:
    world = World(database, tmp_path)
    world.begin("visible")
    yield Meeting(world)
    world.close()


@pytest.mark.parametrize(("setback", "statement"), [("timeouts = 2", "timeouts >= 2"), ("failures = 9", "fatal OR")])
def test_a_planner_leaves_a_chunk_alone_that_is_at_work(meeting: Meeting, setback: str, statement: str) -> None:
    meeting.world.sql(f"UPDATE sluice.chunk SET {setback} WHERE chunk_no = 1")
    worker = meeting.start(working, until="INSERT INTO sluice.event")
    planner = meeting.start(plan_round, until=statement)
    meeting.go(planner)
    assert planner.stands and worker.stands
    meeting.end()
    assert meeting.world.sql("SELECT state::text FROM sluice.chunk WHERE chunk_no = 1") == [("done",)]
    assert run_to_end(meeting.world.context()).state == "succeeded"


@pytest.mark.parametrize(("setback", "statement"), [("timeouts = 2", "timeouts >= 2"), ("failures = 9", "fatal OR")])
def test_a_planner_and_a_reset_do_not_deadlock(meeting: Meeting, setback: str, statement: str) -> None:
    meeting.world.sql(f"UPDATE sluice.chunk SET {setback} WHERE chunk_no = 1")
    planner = meeting.start(plan_round, until=statement)
    meeting.go(planner)
    meeting.start(resetting, until="SET state = 'planned', generation")
    meeting.end()
    assert run_to_end(meeting.world.context()).state == "succeeded"


def test_two_operators_split_two_chunks_at_once(meeting: Meeting) -> None:
    first = meeting.start(splitting(1), until=SETS_STATE)
    meeting.start(splitting(2), until=SETS_STATE)
    assert first.stands
    meeting.end()
    children = meeting.world.sql("SELECT chunk_no, parent_no FROM sluice.chunk WHERE parent_no > 0 ORDER BY 1")
    assert children == [(5, 1), (6, 1), (7, 2), (8, 2)]
    assert run_to_end(meeting.world.context()).state == "succeeded"


@pytest.mark.parametrize("other", ["resume", "reset"])
def test_a_pause_and_another_word_of_an_operator_do_not_deadlock(meeting: Meeting, other: str) -> None:
    operate.pause(meeting.world.context(), meeting.run_id, "first")
    first = meeting.start(lambda c, r: operate.pause(c, r, "again"), until="INSERT INTO sluice.event")
    meeting.start(operate.resume if other == "resume" else resetting_alone, until=COMMIT)
    assert first.stands
    meeting.end()
    operate.resume(meeting.world.context(), meeting.run_id)
    assert run_to_end(meeting.world.context()).state == "succeeded"


def test_a_pause_does_not_wait_for_a_worker(meeting: Meeting) -> None:
    worker = meeting.start(working, until=SETS_FLAG)
    pausing = meeting.start(lambda c, r: operate.pause(c, r, "now"), until=COMMIT)
    assert pausing.stands and worker.stands
    while pausing.stands:
        meeting.go(pausing)
    assert pausing.ended
    meeting.end()
    assert meeting.world.sql("SELECT state::text FROM sluice.chunk WHERE chunk_no = 1") == [("marked",)]


def test_a_reset_waits_for_a_worker(meeting: Meeting) -> None:
    worker = meeting.start(working, until=SETS_FLAG)
    reset = meeting.start(resetting_alone, until=COMMIT)
    assert worker.stands and not reset.stands and not reset.ended
    with pytest.raises(StaleGenerationError):
        meeting.end()
    assert meeting.world.sql("SELECT generation FROM sluice.run") == [(2,)]
    assert meeting.world.sql("SELECT outcome FROM sluice.attempt") == [("stopped",)]
    assert run_to_end(meeting.world.context()).state == "succeeded"


@pytest.mark.parametrize("statement", [SETS_FLAG, "rows_updated = rows_updated"], ids=["marking", "applying"])
def test_two_workers_of_a_chunk_follow_one_another(meeting: Meeting, statement: str) -> None:
    first = meeting.start(working, until=statement)
    second = meeting.start(working, until=COMMIT)
    while second.stands:
        meeting.go(second)
    assert first.stands and not second.ended, "the second one waits for the chunk"
    meeting.end()
    assert first.answer == second.answer
    assert meeting.world.sql("SELECT count(*) FROM sluice.event WHERE event = 'done'") == [(1,)]


def working(context: Context, run_id: int) -> object:
    return work_chunk(context, run_id, "double", 1)


def resetting(context: Context, run_id: int) -> object:
    return operate.reset(context, run_id, "start over")


def resetting_alone(context: Context, run_id: int) -> object:
    return operate.reset_locked(context, run_id, "start over")


def splitting(chunk_no: int) -> Verb:
    return lambda context, run_id: operate.split(context, run_id, "double", chunk_no)
