"""What operators may do to a run: pause, cancel, split, quarantine, take up again, reset."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.protocol import (
    HELP,
    TROUBLE,
    Move,
    clear_flags,
    end_run,
    is_drained,
    target_is_free,
    to_do,
)
from tests.model.scenario import Scenario
from tests.model.world import ACTIVE, Chunk, State, change_chunk, change_run


def operate(scenario: Scenario, state: State) -> Iterator[Move]:
    """Every operator's move; the engine makes some of them itself (split after timeouts, fail on an error)."""
    for number, run in enumerate(state.runs, 1):
        if run.state in ACTIVE:
            yield from steer(scenario, state, number)
        if scenario.operator or scenario.generations > 1:
            yield from take_up(scenario, state, number)
    for number in range(len(state.chunks)):
        yield from treat_chunk(scenario, state, number)


def steer(scenario: Scenario, state: State, number: int) -> Iterator[Move]:
    """Pause, resume, cancel, fail. A pause waits for nobody: it counts from the next transaction on."""
    run = state.runs[number - 1]
    if "pause" in scenario.operator:
        paused = run._replace(desired="pause" if run.desired == "run" else "run")
        name = (TROUBLE, "pauses run") if run.desired == "run" else (HELP, "resumes run")
        yield (*name, number), state._replace(runs=change_run(state, number, paused))
    if is_drained(scenario, state, number):
        if "cancel" in scenario.operator:
            yield from end_run(scenario, state, number, "cancelled", TROUBLE)
        if "fail" in scenario.operator:
            yield from end_run(scenario, state, number, "failed", TROUBLE)


def take_up(scenario: Scenario, state: State, number: int) -> Iterator[Move]:
    """Make a run active again: with its open and quarantined chunks (same generation), or by a reset (the next)."""
    run, rules = state.runs[number - 1], scenario.rules
    others = state._replace(runs=state.runs[: number - 1] + state.runs[number:])
    if not target_is_free(scenario, others) or (rules.newest_run and number < len(state.runs)):
        return
    if run.state in ("failed", "cancelled"):
        runs = change_run(state, number, run._replace(state="running", desired="run"))
        chunks = tuple(
            chunk._replace(state="planned") if chunk.run == number and chunk.state == "quarantined" else chunk
            for chunk in state.chunks
        )
        yield (HELP, f"takes run {number} up again"), state._replace(runs=runs, chunks=chunks)
    if run.generation < scenario.generations and is_drained(scenario, state, number):
        yield from reset(scenario, state, number)


def reset(scenario: Scenario, state: State, number: int) -> Iterator[Move]:
    """generation + 1; chunks that are neither done nor split are planned again; flags go."""
    cleared = clear_flags(state)
    if cleared is None:
        return
    generation = state.runs[number - 1].generation + 1
    kept = ("done", "split") if scenario.rules.reset_leaves_split else ("done",)
    chunks = tuple(
        chunk._replace(state="planned", generation=generation)
        if chunk.run == number and chunk.state not in kept
        else chunk
        for chunk in state.chunks
    )
    runs = change_run(
        cleared,
        number,
        state.runs[number - 1]._replace(state="running", desired="run", generation=generation, marks_complete=False),
    )
    yield (TROUBLE, f"operator resets run {number}"), cleared._replace(runs=runs, chunks=chunks)


def treat_chunk(scenario: Scenario, state: State, number: int) -> Iterator[Move]:
    """Split or quarantine a chunk that gives trouble; retry one that is quarantined."""
    chunk, rules = state.chunks[number], scenario.rules
    run = state.runs[chunk.run - 1]
    if rules.chunk_lock and any(session.chunk == number for session in state.sessions):
        return
    if chunk.state in ("planned", "marked") and run.state in ACTIVE and "quarantine" in scenario.operator:
        chunks = change_chunk(state.chunks, number, chunk._replace(state="quarantined"))
        yield (TROUBLE, f"chunk {number} is quarantined"), state._replace(chunks=chunks)
    if chunk.state in ("planned", "marked", "quarantined") and "split" in scenario.operator:
        yield from split(state, number)
    if chunk.state == "quarantined":
        chunks = change_chunk(state.chunks, number, chunk._replace(state="planned"))
        yield (HELP, f"retries chunk {number}"), state._replace(chunks=chunks)


def split(state: State, number: int) -> Iterator[Move]:
    """Two planned children, cut between the keys that are still to do."""
    parent = state.chunks[number]
    keys = sorted({row.key for row in state.rows if parent.has(row) and to_do(row, parent.run)})
    if len(keys) < 2:
        return
    cut = keys[(len(keys) - 1) // 2]
    children = (
        Chunk(parent.lo, cut, "planned", parent.run, parent.generation, parent.late),
        Chunk(cut + 1, parent.hi, "planned", parent.run, parent.generation, parent.late),
    )
    chunks = (*change_chunk(state.chunks, number, parent._replace(state="split")), *children)
    yield (TROUBLE, f"chunk {number} is split after key {cut}"), state._replace(chunks=chunks)
