"""What must hold in every state and on every move, under the names of the design."""

from __future__ import annotations

from tests.model.protocol import to_do
from tests.model.scenario import Scenario
from tests.model.world import ACTIVE, Chunk, State

ALLOWED = {
    ("planned", "marked"),  # T1
    ("marked", "done"),  # T2, nothing left
    ("marked", "planned"),  # T2, rows left: next round
    ("planned", "split"),
    ("marked", "split"),
    ("planned", "quarantined"),
    ("marked", "quarantined"),
    ("quarantined", "planned"),  # operator's retry
    ("quarantined", "split"),
}
FUSED = {("planned", "done")}  # T2 without T1


def broken(scenario: Scenario, before: State, after: State) -> list[str]:
    """Names of the invariants that this move, or the state it leads to, violates."""
    names = []
    if after.rows is not before.rows or after.runs is not before.runs:
        names += broken_rows(after)
    if after.chunks is not before.chunks:
        names += broken_ledger(scenario, before, after)
    if after.runs is not before.runs:
        names += broken_runs(before, after)
    if after.sessions is not before.sessions or after.runs is not before.runs:
        names += broken_sessions(before, after)
    if after.rows is not before.rows or after.chunks is not before.chunks:
        names += broken_sums(after)
    return names


def broken_rows(state: State) -> list[str]:
    """Once per run (I3), never flag and the newest run's stamp together (I5), no flag without a run (I6)."""
    names = []
    if any(2 in row.applied for row in state.rows):
        names.append("I3 row applied twice in a run")
    flagged = [row for row in state.rows if row.flag]
    if any(row.stamp == len(state.runs) for row in flagged):
        names.append("I5 flag and stamp together")
    if flagged and not any(run.state in ACTIVE for run in state.runs):
        names.append("I6 flag without an active run")
    return names


def broken_ledger(scenario: Scenario, before: State, after: State) -> list[str]:
    """Transitions (I9), false success (I4), ranges (I2)."""
    names = []
    fused = scenario.mode == "fused"
    for number, chunk in enumerate(after.chunks):
        old = before.chunks[number] if number < len(before.chunks) else None
        if old is None or old == chunk:
            continue
        change = (old.state, chunk.state)
        again = chunk.generation > old.generation and chunk.state == "planned" and old.state != "done"
        listed = change in ALLOWED or (fused and change in FUSED) or old.state == chunk.state == "planned"
        if not (again or (listed and chunk.generation == old.generation)):
            names.append("I9 forbidden ledger transition")
        if change[1] == "done" and change[0] != "done" and left_to_do(after, chunk):
            names.append("I4 false success")
    for number in range(1, len(after.runs) + 1):
        leaves = [c for c in after.chunks if c.run == number and not c.late and c.state != "split"]
        keys = {key for lo, hi in scenario.ranges for key in range(lo, hi + 1)}
        if any(sum(leaf.lo <= key <= leaf.hi for leaf in leaves) != 1 for key in keys):
            names.append("I2 key in no or two chunks")
    return names


def left_to_do(state: State, chunk: Chunk) -> bool:
    return any(chunk.has(row) and to_do(row, chunk.run) for row in state.rows)


def broken_runs(before: State, after: State) -> list[str]:
    """One active run (I12), nothing left behind by a success (I4, I23)."""
    names = []
    if sum(run.state in ACTIVE for run in after.runs) > 1:
        names.append("I12 two active runs")
    for number, run in enumerate(after.runs, 1):
        old = before.runs[number - 1] if number <= len(before.runs) else None
        ended = old is not None and run.state == "succeeded" and old.state != "succeeded"
        if ended and any(to_do(row, number) for row in after.rows):
            names.append("I23 success leaves rows to do")
    return names


def broken_sessions(before: State, after: State) -> list[str]:
    """An open T1 or T2 belongs to an active run of its generation (I14) and did not begin while paused (I15)."""
    names = []
    for session in after.sessions:
        run = after.runs[after.chunks[session.chunk].run - 1]
        if run.state not in ACTIVE or run.generation != session.ticket:
            names.append("I14 work for a stale generation or a run that ended")
        if session not in before.sessions and len(after.sessions) > len(before.sessions) and run.desired != "run":
            names.append("I15 work begun while paused")
    return names


def broken_sums(state: State) -> list[str]:
    """
    The ledger's counts are the rows' (I7, I8). Both sides count deleted rows, which stay as tombstones.

    In every state, not only at the end: data and counts are written by one transaction.
    """
    names = []
    for run in range(1, len(state.runs) + 1):
        reported = sum(chunk.updated for chunk in state.chunks if chunk.run == run)
        stamped = sum(row.stamp == run for row in state.rows)
        newest = run == len(state.runs)  # whose stamps nobody has written over
        if reported != sum(row.applied[run - 1] for row in state.rows) or (newest and reported != stamped):
            names.append("I7 rows reported are not rows applied")
    if state.marks != sum(row.flag for row in state.rows):
        names.append("I8 marks do not add up")
    return names
