"""The UpdateFlag protocol as a state machine: what every transaction of Sluice tests, locks and writes.

How it is modelled
------------------
*Transactions.* T1 and T2 are two moves each: "begin" (lock the run row and the chunk's ledger row, run the
statement that locks the target rows) and "commits" (T2: post-check first). Between them everybody else may move, sees
the old versions and waits for the locks; a statement that meets a locked row waits there and judges the row anew
when it gets it. Finer steps would show nothing new: a lock that was got without waiting may as well have been
got just before the statement, and nothing that others can write lies between post-check and commit that could
not come before the one or after the other.

*Attempts.* An attempt that holds no transaction is not part of the state: all it knows is (run, chunk,
generation), so whatever it does next, a new attempt can do. Hence anybody may begin T1 or T2 of any chunk at any
time. This one rule covers the retry beside the first attempt, the second execution, the redrive, the frozen
Lambda that wakes up after a week, a crash between two transactions, and the COMMIT whose answer was lost.

*Crashes.* An open transaction may roll back at any time. That covers a crash between two statements, and the client
that is gone while its statement runs on: the locks stay for as long as they like, and then nothing has happened.

*Operators and planner* (start, round, finish, reset, split, …) are one transaction and one move each: they have the
run row or the chunk for themselves, so they wait for T1 and T2 and then see no half-done work. Only a pause waits for
nobody; it counts from the next transaction on.

*Modes.* visible: T1, then T2. fused: T2 alone, without the flag test, on a chunk that is planned. run: T1 of every
chunk before the first T2.

A run has one step here, so the end of the step and of the run are one move.

Not modelled: time (no lease, timeout, back-off, limit of rounds or attempts: nothing here may depend on them), fairness
(liveness means that success can be reached, not how soon), the manifest in S3, key values and collations, the NULL
chunk, walking a chunk in sub-ranges, stored answers (I11), side statements, Snowflake.

Sizes: two or three rows, two chunks (more after splits and late rows), up to two runs and two generations. 11 to 27,000
states a scenario, 169,000 in all, and 246,000 for the table of designs. SLUICE_MODEL=full adds three scenarios with
794,000 and takes three rows for the table: some minutes.
`python -m tests.model` prints the figures, the table of designs and, for part of a name, the counter-examples.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.explore import Label
from tests.model.scenario import Rules, Scenario
from tests.model.world import (
    ACTIVE,
    DROPPED,
    GONE,
    Chunk,
    Predicate,
    Row,
    Run,
    Session,
    State,
    begin,
    change_chunk,
    change_rows,
    change_run,
    count_applied,
    unlocked,
    visit,
    with_session,
    without,
)

Move = tuple[Label, State]

# Kinds of moves. Attempts, the planner and the end of a writer's transaction need nobody's help and come of themselves.
ATTEMPT, PLANNER, WRITER_ENDS = "attempt", "planner", "application commits"
HELP = "operator helps"  # resume, retry, start again: what an operator does to bring a run home
TROUBLE = "trouble"  # crashes, and what an operator or the engine does to a run on the way
APPLICATION = "application"  # others change the target


def to_do(row: Row, run: int) -> bool:
    """TODO of the design: <stamp> IS DISTINCT FROM :run_ts AND <job eligible>."""
    return row.stamp != run and row.eligible and row.key != GONE


def work_of(scenario: Scenario, chunk: Chunk, at: str) -> Predicate:
    """The WHERE of T1's UPDATE, or of T2's SELECT … FOR NO KEY UPDATE."""
    if at == "T1":
        strict = scenario.rules.mark_tests_stamp
        return lambda row: chunk.has(row) and not row.flag and (to_do(row, chunk.run) or not strict)
    if scenario.mode == "fused":
        return lambda row: chunk.has(row) and to_do(row, chunk.run)
    return lambda row: chunk.has(row) and to_do(row, chunk.run) and row.flag


def work(scenario: Scenario, state: State) -> Iterator[Move]:
    """All that attempts can do: begin T1 or T2, go on after waiting, commit, roll back."""
    if len(state.sessions) < scenario.sessions:
        for number in range(len(state.chunks)):
            if scenario.mode != "fused":
                yield from begin_work(scenario, state, number, "T1")
            yield from begin_work(scenario, state, number, "T2")
    for place, session in enumerate(state.sessions):
        if place and session == state.sessions[place - 1]:
            continue  # a twin: the same move again
        name = f"{session.at} of chunk {session.chunk}"
        rest = without(state, session)
        if session.waiting:
            wanted = work_of(scenario, state.chunks[session.chunk], session.at)
            further = visit(state, session, wanted)
            if further != session:
                yield (ATTEMPT, f"{name} goes on, locked rows", further.held), with_session(rest, further)
            yield (ATTEMPT, f"{name} gives up waiting: rolls back"), rest
            continue
        yield (ATTEMPT, f"{name} commits, rows", session.held), commit(scenario, rest, session)
        yield (TROUBLE, f"{name} rolls back"), rest


def begin_work(scenario: Scenario, state: State, number: int, at: str) -> Iterator[Move]:
    """Lock run and chunk, test both, run the locking statement. A refusal changes nothing and is no move."""
    chunk, rules = state.chunks[number], scenario.rules
    run = state.runs[chunk.run - 1]
    for ticket in range(1, run.generation + 1):
        wanted = run.state in ACTIVE and run.desired == "run" and ticket == run.generation
        if rules.active_run and not wanted:
            continue
        if rules.ledger and not may_work(scenario, state, number, at):
            continue
        if at == "T2" and scenario.mode == "run" and not run.marks_complete:
            continue
        after = begin(state, Session(at, number, ticket=ticket), work_of(scenario, chunk, at))
        yield (ATTEMPT, f"{at} of chunk {number} begins, generation", ticket), after


def may_work(scenario: Scenario, state: State, number: int, at: str) -> bool:
    """The ledger row is free, and its state allows this transaction."""
    if any(session.chunk == number for session in state.sessions):
        return False
    if at == "T1" or (scenario.mode == "fused" and scenario.rules.exact_state):
        return state.chunks[number].state == "planned"
    if scenario.rules.exact_state:
        return state.chunks[number].state == "marked"
    return state.chunks[number].state in ("planned", "marked")


def commit(scenario: Scenario, state: State, session: Session) -> State:
    """Write ledger row and data in the one transaction. `state` is the world without the session's locks."""
    chunk, number = state.chunks[session.chunk], session.chunk
    if session.at == "T1":
        rows = change_rows(state, session.held, lambda row: row._replace(flag=True))
        marks = len(session.held)
        chunk = chunk._replace(
            state=noted(scenario.rules, chunk, "marked"), marked=0 if scenario.rules.stamp else marks
        )
        return state._replace(rows=rows, chunks=change_chunk(state.chunks, number, chunk), marks=state.marks + marks)
    rows = change_rows(state, session.held, lambda row: applied(scenario.rules, row, chunk.run))
    updated = chunk.updated + len(session.held)
    verdict = noted(scenario.rules, chunk, t2_verdict(scenario.rules, rows, chunk, len(session.held)))
    chunks = change_chunk(state.chunks, number, chunk._replace(state=verdict, updated=updated))
    used = sum(state.rows[n].flag for n in session.held)
    return state._replace(rows=rows, chunks=chunks, marks=state.marks - used)


def noted(rules: Rules, chunk: Chunk, state: str) -> str:
    """What the ledger says next. Without a ledger an orchestrator only remembers who has answered 'done'."""
    return state if rules.ledger or state == "done" else chunk.state


def applied(rules: Rules, row: Row, run: int) -> Row:
    """SET <columns of the pack>, flag = NULL, stamp = :run_ts."""
    return row._replace(
        applied=count_applied(row, run),
        flag=row.flag and not rules.flag_with_stamp,
        stamp=run if rules.stamp else row.stamp,
    )


def t2_verdict(rules: Rules, rows: tuple[Row, ...], chunk: Chunk, count: int) -> str:
    """
    The ledger state that T2 commits: done when nothing visible is left to do in the range, else planned again.

    Without the stamp nobody can say which rows are left; then T2 can only compare counts, and quarantine the chunk
    when marks are missing.
    """
    if not rules.stamp:
        return "done" if count == chunk.marked or not rules.post_check else "quarantined"
    left = any(chunk.has(row) and to_do(row, chunk.run) and (row.flag or rules.counts_unmarked) for row in rows)
    return "planned" if left and rules.post_check else "done"


def plan(scenario: Scenario, state: State) -> Iterator[Move]:
    """T0, the rounds, and the end of a run. A start with a run key that exists attaches: no move of its own."""
    number = len(state.runs) + 1
    if number <= scenario.runs and target_is_free(scenario, state):
        chunks = tuple(Chunk(lo, hi, run=number) for lo, hi in scenario.ranges)
        yield (
            (PLANNER, f"T0 plans run {number}"),
            state._replace(runs=(*state.runs, Run()), chunks=(*state.chunks, *chunks)),
        )
    for number, run in enumerate(state.runs, 1):
        if run.state in ACTIVE and run.desired == "run" and is_drained(scenario, state, number):
            yield from plan_round(scenario, state, number)


def plan_round(scenario: Scenario, state: State, number: int) -> Iterator[Move]:
    """Ask the ledger and the target what is left; open late chunks for it, or finish."""
    states = {chunk.state for chunk in state.chunks if chunk.run == number}
    run = state.runs[number - 1]
    if scenario.mode == "run" and not run.marks_complete and "planned" not in states:
        complete = run._replace(marks_complete=True)
        yield (PLANNER, "all chunks are marked"), state._replace(runs=change_run(state, number, complete))
    if not states <= {*DROPPED, "quarantined"}:
        return
    left = [row.key for row in state.rows if to_do(row, number)]
    if "quarantined" in states:
        yield from end_run(scenario, state, number, "failed", PLANNER)
    elif left and scenario.rules.sweep:
        yield (PLANNER, "opens a late chunk for keys", min(left), max(left)), open_late(scenario, state, number)
    else:
        yield from end_run(scenario, state, number, "succeeded", PLANNER)


def open_late(scenario: Scenario, state: State, number: int) -> State:
    """A chunk over what is still to do; it may overlap chunks that are done, whose rows carry the stamp."""
    left = [row.key for row in state.rows if to_do(row, number)]
    generation = state.runs[number - 1].generation
    late = Chunk(min(left), max(left), run=number, generation=generation, late=True)
    if scenario.rules.late_numbers:
        return state._replace(chunks=(*state.chunks, late))
    reused = next(n for n, chunk in enumerate(state.chunks) if chunk.run == number)
    return state._replace(chunks=change_chunk(state.chunks, reused, late))


def end_run(scenario: Scenario, state: State, number: int, outcome: str, kind: str) -> Iterator[Move]:
    """Set the final state and, in the same transaction, clear the flags that are left."""
    run = state.runs[number - 1]
    ended = state._replace(runs=change_run(state, number, run._replace(state=outcome)))
    if not scenario.rules.finish_unflags:
        yield (kind, f"run {number} ends: {outcome}"), ended
        return
    cleared = clear_flags(ended)
    if cleared is not None:
        yield (kind, f"run {number} ends: {outcome}"), cleared


def clear_flags(state: State) -> State | None:
    """UPDATE target SET flag = NULL WHERE flag = 1; None while somebody else holds such a row."""
    flagged = tuple(n for n, row in enumerate(state.rows) if row.flag)
    if not set(flagged) <= set(unlocked(state)):
        return None
    rows = change_rows(state, flagged, lambda row: row._replace(flag=False))
    return state._replace(rows=rows, marks=state.marks - len(flagged))


def is_drained(scenario: Scenario, state: State, number: int) -> bool:
    """No T1 or T2 of the run holds its row: SELECT … FROM etl_run FOR UPDATE returns."""
    busy = any(state.chunks[session.chunk].run == number for session in state.sessions)
    return not busy or not scenario.rules.run_barrier


def target_is_free(scenario: Scenario, state: State) -> bool:
    """The unique index lets another run of this target become active."""
    return not scenario.rules.one_active or all(run.state not in ACTIVE for run in state.runs)
