"""The model itself: locks and waiting as in PostgreSQL, an explorer that finds what is there, scenarios that bite."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.model.cases import SLOW, UNAIDED, check
from tests.model.explore import Label, explore
from tests.model.scenario import Scenario
from tests.model.test_protocol import is_home
from tests.model.world import Row, Session, State, Writer, begin, visit, without


def count_to(limit: int) -> Callable[[int], Iterator[tuple[Label, int]]]:
    """Count up by one or by two; from an odd number there is no way back."""

    def moves(state: int) -> Iterator[tuple[Label, int]]:
        if state < limit:
            yield ("up", "one"), state + 1
            yield ("up", "two"), state + 2
        if state % 2 == 0:
            yield ("home",), 0

    return moves


def test_explore_gives_the_shortest_trace_and_stops_there() -> None:
    found = explore(0, count_to(10), lambda before, label, after: ["five"] if after == 5 else [])
    assert found.violations == {"five": [("up", "one"), ("up", "two"), ("up", "two")]}
    assert sorted(found.states) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert found.explain("five").splitlines()[1] == "   1. up: one"


def test_explore_finds_states_without_a_way_back() -> None:
    found = explore(0, count_to(3), lambda before, label, after: [], keep=("up", "home"))
    stuck = [found.states[number] for number in found.cannot_reach(lambda state: state == 0, ("home",))]
    assert stuck == [1, 3]
    assert list(found.cannot_reach(lambda state: state >= 3, ("up", "home"))) == []


def test_statement_waits_at_a_locked_row_and_judges_it_anew() -> None:
    """The snapshot decides what is visited, the newest version what is locked (READ COMMITTED)."""
    rows = tuple(Row(key, (0,)) for key in (0, 0, 0))
    state = begin(State(rows, writer=Writer("move", (1,), 9)), Session("T1", 0), lambda row: row.key == 0)
    (waiting,) = state.sessions
    assert (waiting.held, waiting.waiting) == ((0,), (1, 2))

    moved = state._replace(writer=None, rows=(rows[0], Row(9, (0,)), rows[2], Row(0, (0,))))
    after = visit(moved, waiting, lambda row: row.key == 0)
    assert (after.held, after.waiting) == ((0, 2), ())
    assert without(moved, waiting).sessions == ()


REACHED: list[tuple[str, Scenario, Callable[[State], bool]]] = [
    (
        "a statement waits for a row",
        Scenario("", budget=SLOW, slow_writer=True),
        lambda state: any(session.waiting for session in state.sessions),
    ),
    (
        "a late chunk is worked on",
        Scenario("", budget=(("insert", 1),)),
        lambda state: any(state.chunks[session.chunk].late for session in state.sessions),
    ),
    (
        "a quarantined chunk beside a child of a split one, after a reset",
        Scenario("", operator=frozenset({"split", "quarantine"}), generations=2),
        lambda state: (
            {"quarantined", "split"} <= {chunk.state for chunk in state.chunks} and state.runs[0].generation == 2
        ),
    ),
    (
        "the second run works on rows that the first has stamped",
        Scenario("", keys=(0, 2), runs=2),
        lambda state: any(row.stamp == 1 and row.flag and row.applied == (1, 0) for row in state.rows),
    ),
]


@pytest.mark.parametrize(("scenario", "wanted"), [case[1:] for case in REACHED], ids=[case[0] for case in REACHED])
def test_scenarios_reach_what_they_are_about(scenario: Scenario, wanted: Callable[[State], bool]) -> None:
    assert any(map(wanted, check(scenario).states))


def test_liveness_is_able_to_fail() -> None:
    """A paused run does not come home unless somebody resumes it."""
    found = check(Scenario("", keys=(0, 2), operator=frozenset({"pause"})))
    stuck = [found.states[number] for number in found.cannot_reach(is_home, UNAIDED)]
    assert stuck
    assert all(state.runs[0].desired == "pause" for state in stuck)
