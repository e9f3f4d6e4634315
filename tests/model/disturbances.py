"""What others do to the target while a run works: the application, and people with a SQL prompt.

Every disturbance is limited by the scenario's budget. With `slow_writer` a change is a transaction of its own
that stays open for a while: its rows are locked, and everybody still sees the old versions.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.protocol import APPLICATION, WRITER_ENDS, Move
from tests.model.scenario import Scenario
from tests.model.world import GONE, Row, State, Writer, change_rows, unlocked


def disturb(scenario: Scenario, state: State) -> Iterator[Move]:
    """Start a disturbance, or commit the one that is open."""
    if state.writer is not None:
        yield (
            (WRITER_ENDS, state.writer.does, "rows", state.writer.rows),
            commit_writer(state._replace(writer=None), state.writer),
        )
        return
    for writer in possible_writes(scenario, state):
        budget = scenario.spend(state.budget, writer.does)
        if budget is None:
            continue
        label = (APPLICATION, writer.does, "rows", writer.rows, *(["to key", writer.key] if writer.key >= 0 else []))
        spent = state._replace(budget=budget)
        if scenario.slow_writer:
            yield label, spent._replace(writer=writer)
        else:
            yield label, commit_writer(spent, writer)
    budget = scenario.spend(state.budget, "insert")
    if budget is not None:
        for key in scenario.new_keys:
            rows = (*state.rows, Row(key, (0,) * scenario.runs))
            yield (APPLICATION, "insert with key", key), state._replace(rows=rows, budget=budget)


def possible_writes(scenario: Scenario, state: State) -> Iterator[Writer]:
    """
    Changes of rows that nobody has locked (a write to a locked row waits, which is a later write).

    clear = the manual reset UPDATE … SET flag = NULL; move = a new key in another chunk's range; leave = the row
    no longer matches the job's filter; delete.
    """
    kinds = {name for (name, _), left in zip(scenario.budget, state.budget, strict=True) if left}
    free = tuple(unlocked(state))
    flagged = tuple(n for n in free if state.rows[n].flag)
    if "clear" in kinds and flagged:
        yield Writer("clear", flagged)
        if len(flagged) > 1:
            yield from (Writer("clear", (n,)) for n in flagged)
    for number in free:
        row = state.rows[number]
        if "delete" in kinds:
            yield Writer("delete", (number,))
        if "leave" in kinds and row.eligible:
            yield Writer("leave", (number,))
        if "move" in kinds:
            for lo, hi in scenario.ranges:
                if not lo <= row.key <= hi:
                    yield Writer("move", (number,), lo)


def commit_writer(state: State, writer: Writer) -> State:
    """The rows after the application's transaction."""
    if writer.does == "move":
        return state._replace(rows=change_rows(state, writer.rows, lambda row: row._replace(key=writer.key)))
    if writer.does == "leave":
        return state._replace(rows=change_rows(state, writer.rows, lambda row: row._replace(eligible=False)))
    marks = sum(state.rows[number].flag for number in writer.rows)
    key = GONE if writer.does == "delete" else None
    rows = change_rows(state, writer.rows, lambda row: row._replace(flag=False, key=row.key if key is None else key))
    return state._replace(rows=rows, marks=state.marks - marks)
