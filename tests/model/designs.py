"""The designs that Sluice does not use, as small programs of an attempt; each loses or repeats rows somewhere.

An attempt runs the steps of its design one after the other. A step is either `Work`, one UPDATE of the target in a
transaction of its own, or a note in a status table, likewise committed on its own. Unlike in protocol.py an
attempt between two steps is part of the state, because it remembers where it was. Two attempts per chunk and
more may live at once: the orchestrator retries whenever it likes and the first attempt goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.model.disturbances import disturb
from tests.model.protocol import ATTEMPT, TROUBLE, Move
from tests.model.scenario import Scenario
from tests.model.world import (
    GONE,
    Chunk,
    Row,
    Session,
    State,
    begin,
    change_chunk,
    change_rows,
    count_applied,
    visit,
    with_session,
    without,
)

OPEN = "*"  # behind a step's name: its UPDATE has its locks and is not committed yet
END = "end"  # the attempt is over and has reported nothing


@dataclass(frozen=True)
class Work:
    """UPDATE target SET <change> WHERE <in the chunk> AND <rows>; then the next step, by the number of rows."""

    rows: Callable[[Row], bool]
    change: Callable[[Row], Row]
    then: Callable[[int], str]


Note = Callable[[Chunk, int], tuple[Chunk, str] | None]  # (chunk, token) -> (chunk, next step), None = wait


@dataclass(frozen=True)
class Design:
    """The steps by name; the first is where an attempt begins. `lease_expires`: a lease may end at any time."""

    steps: Mapping[str, Work | Note]
    autocommit: bool = False  # the server commits what it has begun, whether the client lives or not
    lease_expires: bool = False


def flag(row: Row) -> Row:
    return row._replace(flag=True)


def apply(row: Row) -> Row:
    return row._replace(flag=False, applied=count_applied(row, 1))


def report(chunk: Chunk, token: int) -> tuple[Chunk, str] | None:
    """The answer reaches the orchestrator, or the status row is set to done."""
    return chunk._replace(state="done", owner=0), END


def claim_status(chunk: Chunk, token: int) -> tuple[Chunk, str] | None:
    """Status row 'running'. A retry finds it there and cannot know whether anybody still works."""
    return (chunk, END) if chunk.state == "done" else (chunk._replace(state="running"), "work")


def claim_lease(chunk: Chunk, token: int) -> tuple[Chunk, str] | None:
    """Take the lease when nobody has it."""
    if chunk.state == "done":
        return chunk, END
    return None if chunk.owner else (chunk._replace(owner=token), "check")


def check_fence(chunk: Chunk, token: int) -> tuple[Chunk, str] | None:
    return chunk, "work" if chunk.owner == token else END


def close_lease(chunk: Chunk, token: int) -> tuple[Chunk, str] | None:
    return report(chunk, token) if chunk.owner == token else (chunk, END)


MARK = Work(lambda row: not row.flag, flag, lambda count: "apply" if count else "report")
MARK_ALWAYS = Work(lambda row: not row.flag, flag, lambda count: "apply")
APPLY = Work(lambda row: row.flag, apply, lambda count: "report")
BOTH = Work(lambda row: not row.flag, apply, lambda count: "report")  # marked and applied, one commit
WORK = Work(lambda row: True, apply, lambda count: "close")

DESIGNS: dict[str, Design] = {
    "first design as written": Design({"mark": MARK, "apply": APPLY, "report": report}, autocommit=True),
    "first design, always phase 2": Design({"mark": MARK_ALWAYS, "apply": APPLY, "report": report}, autocommit=True),
    "first design, both phases in one transaction": Design({"both": BOTH, "report": report}),
    "status row in own transaction": Design({"claim": claim_status, "work": WORK, "close": report}),
    "lease with expiry": Design(
        {"claim": lambda chunk, token: skip_check(claim_lease(chunk, token)), "work": WORK, "close": close_lease},
        lease_expires=True,
    ),
    "lease, fence checked outside the work transaction": Design(
        {"claim": claim_lease, "check": check_fence, "work": WORK, "close": close_lease}, lease_expires=True
    ),
}


def skip_check(claimed: tuple[Chunk, str] | None) -> tuple[Chunk, str] | None:
    return (claimed[0], "work") if claimed and claimed[1] == "check" else claimed


def design_start(scenario: Scenario) -> State:
    """The chunks are planned; nobody has begun."""
    return scenario.first_state()._replace(chunks=tuple(Chunk(lo, hi) for lo, hi in scenario.ranges))


def design_moves(design: Design, scenario: Scenario, state: State) -> Iterator[Move]:
    """Everything that may happen next under a design."""
    first = next(iter(design.steps))
    for number, chunk in enumerate(state.chunks):
        if chunk.state != "done" and len(state.sessions) < scenario.sessions:
            attempt = Session(first, number, ticket=unused_token(state))
            yield (ATTEMPT, attempt.ticket, "starts on chunk", number), with_session(state, attempt)
        if design.lease_expires and chunk.owner:
            chunks = change_chunk(state.chunks, number, chunk._replace(owner=0))
            yield (TROUBLE, f"lease of chunk {number} expires"), state._replace(chunks=chunks)
    for session in state.sessions:
        yield from advance(design, state, session)
        budget = scenario.spend(state.budget, "crash")
        if budget is not None:
            yield from crash(design, state._replace(budget=budget), session)
    yield from disturb(scenario, state)


def unused_token(state: State) -> int:
    used = {session.ticket for session in state.sessions} | {chunk.owner for chunk in state.chunks}
    return next(token for token in range(1, len(used) + 2) if token not in used)


def advance(design: Design, state: State, session: Session) -> Iterator[Move]:
    """The next thing an attempt does."""
    name, chunk, rest = tell_session(session), state.chunks[session.chunk], without(state, session)
    step = design.steps[session.at.rstrip(OPEN)]
    if not isinstance(step, Work):
        noted = step(chunk, session.ticket)
        if noted is not None:
            chunks = change_chunk(state.chunks, session.chunk, noted[0])
            yield (ATTEMPT, name, "->", noted[1]), go_to(rest._replace(chunks=chunks), session, noted[1])
    elif not session.at.endswith(OPEN):
        opened = session._replace(at=session.at + OPEN)
        yield (ATTEMPT, name, "runs its UPDATE"), begin(rest, opened, wanted_by(step, chunk))
    elif session.waiting:
        further = visit(state, session, wanted_by(step, chunk))
        if further != session:
            yield (ATTEMPT, name, "goes on, locked rows", further.held), with_session(rest, further)
    else:
        following = step.then(len(session.held))
        yield (ATTEMPT, name, "commits, rows", session.held), go_to(commit(step, rest, session), session, following)


def crash(design: Design, state: State, session: Session) -> Iterator[Move]:
    """The client is gone. Under autocommit the server finishes the statement and commits it all the same."""
    name, rest = tell_session(session), without(state, session)
    yield (TROUBLE, name, "crashes"), rest
    step = design.steps[session.at.rstrip(OPEN)]
    if design.autocommit and isinstance(step, Work) and session.at.endswith(OPEN) and not session.waiting:
        yield (TROUBLE, name, "crashes; the server commits, rows", session.held), commit(step, rest, session)


def wanted_by(step: Work, chunk: Chunk) -> Callable[[Row], bool]:
    return lambda row: chunk.has(row) and step.rows(row)


def commit(step: Work, state: State, session: Session) -> State:
    return state._replace(rows=change_rows(state, session.held, step.change))


def go_to(state: State, session: Session, step: str) -> State:
    if step == END:
        return state
    return with_session(state, session._replace(at=step, held=(), waiting=()))


def tell_session(session: Session) -> str:
    return f"{session.ticket} on chunk {session.chunk} ({session.at.rstrip(OPEN)})"


def judge_table(scenario: Scenario, before: State, after: State) -> list[str]:
    """
    D: a row applied twice. F: a chunk turns done while a row it was planned with, and still has, is not applied.
    R: the run succeeds while a planned row, which can then only have moved, is not applied.

    Rows inserted after the plan are not held against a design here: only the sweep promises them anything.
    """
    names = []
    if after.rows is not before.rows and any(2 in row.applied for row in after.rows):
        names.append("D")
    planned = list(zip(after.rows, scenario.keys, strict=False))
    if after.chunks is not before.chunks:
        for old, new in zip(before.chunks, after.chunks, strict=False):
            if new.state == "done" != old.state and any(
                new.has(row) and row.key == home and is_left(row) for row, home in planned
            ):
                names.append("F")
    succeeded = any(run.state == "succeeded" for run in after.runs)
    if succeeded and after.runs is not before.runs and any(is_left(row) for row, _ in planned):
        names.append("R")
    return names


def is_left(row: Row) -> bool:
    return row.key != GONE and row.eligible and row.applied[0] == 0
