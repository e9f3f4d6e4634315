"""Sluice's protocol keeps its invariants in every state of every scenario, and can always be brought home."""

from __future__ import annotations

import os
from functools import cache

import pytest

from tests.model.cases import FULL, SCENARIOS, TAKEN_AWAY, UNAIDED, check, check_without
from tests.model.explore import Exploration, tell
from tests.model.protocol import HELP
from tests.model.scenario import Rules, Scenario
from tests.model.world import ACTIVE, State

SIZES = [*SCENARIOS, *(FULL if os.environ.get("SLUICE_MODEL") == "full" else [])]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scenario", SIZES, ids=lambda scenario: scenario.name)
def test_invariants_and_liveness(scenario: Scenario) -> None:
    """All states of a scenario: no invariant is broken, and from each of them success can be reached."""
    found = check(scenario)
    assert not found.violations, "\n".join(map(found.explain, found.violations))
    assert_never_stuck(found)


def assert_never_stuck(found: Exploration[State]) -> None:
    """A run that is left alone succeeds; one that is paused, quarantined or failed does with an operator's help."""
    assert any(map(has_succeeded, found.states))
    alone = (n for n in found.cannot_reach(has_succeeded, UNAIDED) if is_left_alone(found.states[n]))
    for number in alone:
        pytest.fail(f"stuck without an operator after\n{tell(found.trace_to(number))}\n{found.states[number]}")
    for number in found.cannot_reach(is_home, (*UNAIDED, HELP)):
        pytest.fail(f"stuck after\n{tell(found.trace_to(number))}\n{found.states[number]}")


def has_succeeded(state: State) -> bool:
    return bool(state.runs) and state.runs[-1].state == "succeeded"


def is_home(state: State) -> bool:
    """Succeeded, or cancelled because somebody wanted that."""
    return bool(state.runs) and state.runs[-1].state in ("succeeded", "cancelled")


def is_left_alone(state: State) -> bool:
    """The newest run is active and wanted, and none of its chunks waits for an operator."""
    if not state.runs:
        return True
    run, number = state.runs[-1], len(state.runs)
    quarantined = any(chunk.state == "quarantined" for chunk in state.chunks if chunk.run == number)
    return run.state in ACTIVE and run.desired == "run" and not quarantined


@cache
def is_sound(scenario: Scenario) -> bool:
    """With all its rules the protocol breaks nothing there."""
    return not check(scenario).violations


@pytest.mark.parametrize(
    ("rules", "scenario", "expected"),
    [case[1:] for case in TAKEN_AWAY],
    ids=[f"{wrong} - {expected}" for wrong, _, _, expected in TAKEN_AWAY],
)
def test_rule_is_needed(rules: Rules, scenario: Scenario, expected: str) -> None:
    """Without any one of its rules the protocol breaks an invariant: the check is able to fail."""
    assert is_sound(scenario)
    found = check_without(rules, scenario, expected)
    assert expected in found.violations, f"not found in {len(found.states)} states"
