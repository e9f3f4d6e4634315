"""The world of the model: a target table, its rows and locks, the ledger, and how a statement meets a lock.

Everything is a small immutable tuple, so that a state can be hashed. Rows, chunks and runs are named by their
place: row 0 is the first of `State.rows`, chunk 0 the first of `State.chunks`; runs count from 1, because a
stamp of 0 means "stamped by something before".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

GONE = -1  # the key of a deleted row; its counters stay for the sums
ACTIVE = ("running",)
DROPPED = ("done", "split")  # ledger states that need no more work


class Row(NamedTuple):
    """A row of the target. `applied` counts what the test can see and the protocol cannot, per run."""

    key: int
    applied: tuple[int, ...]
    flag: bool = False
    stamp: int = 0
    eligible: bool = True


class Chunk(NamedTuple):
    """
    A row of the ledger: the keys lo..hi of one run.

    `updated` is the column rows_updated. `marked`, the rows of the last T1, is kept only for the design without a
    stamp, which has nothing else to go by. `owner` is the token of a lease (broken designs only).
    """

    lo: int
    hi: int
    state: str = "planned"
    run: int = 1
    generation: int = 1
    late: bool = False
    marked: int = 0
    updated: int = 0
    owner: int = 0

    def has(self, row: Row) -> bool:
        return self.lo <= row.key <= self.hi


class Run(NamedTuple):
    """The run row. `marks_complete` belongs to the mode `run`: the planner has begun to hand out T2."""

    state: str = "running"
    desired: str = "run"
    generation: int = 1
    marks_complete: bool = False


class Session(NamedTuple):
    """
    A database session inside a transaction (of the broken designs also: between two).

    `held` are the target rows it has locked, `waiting` the rows its statement still has to visit: the first of
    them is locked by somebody else. `ticket` is the generation it was planned with (or its lease token).
    """

    at: str
    chunk: int
    held: tuple[int, ...] = ()
    waiting: tuple[int, ...] = ()
    ticket: int = 1


class Writer(NamedTuple):
    """The application's open transaction: what it did to which rows, not yet committed."""

    does: str
    rows: tuple[int, ...]
    key: int = GONE


class State(NamedTuple):
    """
    One state of everything.

    `budget` is what is left of each disturbance, in the scenario's order. `marks` is the account of I8: rows
    marked by T1, less those applied by T2, cleared by hand or by a reset, or deleted while marked.
    """

    rows: tuple[Row, ...]
    chunks: tuple[Chunk, ...] = ()
    runs: tuple[Run, ...] = ()
    sessions: tuple[Session, ...] = ()
    writer: Writer | None = None
    budget: tuple[int, ...] = ()
    marks: int = 0


Predicate = Callable[[Row], bool]


def visit(state: State, session: Session, wanted: Predicate) -> Session:
    """
    Let a statement go on until it has visited every row or meets one that somebody else has locked.

    This is READ COMMITTED: which rows to visit was decided by the snapshot at the start (`session.waiting`), but
    each is judged by its newest committed version when its lock is got (PostgreSQL's EvalPlanQual). So a row
    that changed meanwhile may drop out, and a row that came to match meanwhile is not seen.
    """
    taken = set(state.writer.rows) if state.writer else set()
    for other in state.sessions:
        if other is not session:
            taken.update(other.held)
    held = session.held
    for place, number in enumerate(session.waiting):
        if number in taken:
            return session._replace(held=held, waiting=session.waiting[place:])
        if wanted(state.rows[number]):
            held = (*held, number)
    return session._replace(held=held, waiting=())


def begin(state: State, session: Session, wanted: Predicate) -> State:
    """Open a transaction and run its locking statement with a snapshot of now."""
    matching = tuple(number for number, row in enumerate(state.rows) if wanted(row))
    return with_session(state, visit(state, session._replace(waiting=matching), wanted))


def with_session(state: State, session: Session) -> State:
    """Sessions are kept sorted: which backend does the work makes no difference."""
    return state._replace(sessions=tuple(sorted((*state.sessions, session))))


def without(state: State, session: Session) -> State:
    """End a session; all its locks go."""
    place = state.sessions.index(session)
    return state._replace(sessions=state.sessions[:place] + state.sessions[place + 1 :])


def change_rows(state: State, numbers: tuple[int, ...], change: Callable[[Row], Row]) -> tuple[Row, ...]:
    rows = list(state.rows)
    for number in numbers:
        rows[number] = change(rows[number])
    return tuple(rows)


def change_chunk(chunks: tuple[Chunk, ...], number: int, chunk: Chunk) -> tuple[Chunk, ...]:
    return (*chunks[:number], chunk, *chunks[number + 1 :])


def change_run(state: State, number: int, run: Run) -> tuple[Run, ...]:
    return (*state.runs[: number - 1], run, *state.runs[number:])


def unlocked(state: State) -> Iterator[int]:
    """Rows that live and that nobody has locked."""
    taken = set(state.writer.rows) if state.writer else set()
    for session in state.sessions:
        taken.update(session.held)
    return (n for n, row in enumerate(state.rows) if row.key != GONE and n not in taken)


def count_applied(row: Row, run: int) -> tuple[int, ...]:
    """The counters of a row that `run` applies once more; 2 stands for every number above 1."""
    counters = list(row.applied)
    counters[run - 1] = min(2, counters[run - 1] + 1)
    return tuple(counters)
