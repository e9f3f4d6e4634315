"""JSONata in states: scopes, the order of Assign and Output, undefined, null and the other traps."""

from __future__ import annotations

from typing import Any

import pytest

from tests.statemachine.interpreter.world import World, distributed, inline, machine, passing, task

END: dict[str, Any] = {"Type": "Pass", "End": True}


def test_assign_and_output_see_the_same_old_variables(world: World) -> None:
    states = {
        "First": {"Type": "Pass", "Assign": {"n": 1, "m": 10}, "Next": "Second"},
        "Second": {
            "Type": "Pass",
            "Assign": {"n": "{% $n + 1 %}", "m": "{% $n + 100 %}"},
            "Output": {"n": "{% $n %}", "m": "{% $m %}"},
            "Next": "Third",
        },
        "Third": {"Type": "Pass", "Output": [{"was": "{% $states.input %}"}, "{% $n %}", "{% $m %}"], "End": True},
    }
    assert world.output(machine(states)) == [{"was": {"n": 1, "m": 10}}, 2, 101]


def test_a_new_variable_is_invisible_in_the_same_states_output(world: World) -> None:
    error, cause = world.error(passing(Assign={"n": 1}, Output="{% $n %}"))
    assert error == "States.QueryEvaluationError"
    assert "'$n'" in str(cause)
    assert "'Output'" in str(cause)


def test_task_output_and_assign_see_the_result(world: World) -> None:
    first = task(Assign={"whole": "{% $states.result.StatusCode %}"}, Output="{% $states.input.a %}", Next="Last")
    states = {"Work": first, "Last": {**END, "Output": ["{% $states.input %}", "{% $whole %}"]}}
    assert world.output(machine(states), {"a": 5}) == [5, 200]


@pytest.mark.parametrize(
    ("output", "field"),
    [
        ("{% $states.input.missing %}", "Output"),
        ({"a": {"b": ["x", "{% $states.input.missing %}"]}}, "Output/a/b[1]"),
        ("{% $states.input.list[0] %}", "Output"),
    ],
)
def test_undefined_is_an_error_and_not_null(world: World, output: Any, field: str) -> None:
    error, cause = world.error(passing(Output=output), {"list": []})
    assert error == "States.QueryEvaluationError"
    assert f"'{field}' returned nothing (undefined)" in str(cause)
    assert "executing the state 'Only' (entered at the event id #2)" in str(cause)


def test_undefined_can_be_guarded(world: World) -> None:
    output = "{% $exists($states.input.params) ? $states.input.params : {} %}"
    assert world.output(passing(Output=output)) == {}


def test_null_is_a_value(world: World) -> None:
    output = {
        "member": "{% $states.input.a %}",
        "exists": "{% $exists($states.input.a) %}",
        "type": "{% $type($states.input.a) %}",
        "equal": "{% $states.input.a = null %}",
        "list": "{% $states.input.list.($) %}",
        "built": "{% {'x': null, 'y': [null]} %}",
    }
    assert world.output(passing(Output=output), {"a": None, "list": [1, None]}) == {
        "member": None,
        "exists": True,
        "type": "null",
        "equal": True,
        "list": [1, None],
        "built": {"x": None, "y": [None]},
    }


def test_null_survives_in_a_variable(world: World) -> None:
    states = {
        "First": {"Type": "Pass", "Assign": {"nothing": None, "deep": {"a": [None]}}, "Next": "Last"},
        "Last": {**END, "Output": ["{% $nothing %}", "{% $deep %}", "{% $type($nothing) %}"]},
    }
    assert world.output(machine(states)) == [None, {"a": [None]}, "null"]


def test_a_filter_with_one_hit_is_no_array_unless_asked(world: World) -> None:
    data = {"rows": [{"k": 1}, {"k": 2}]}
    assert world.output(passing(Output="{% $states.input.rows[k=1] %}"), data) == {"k": 1}
    assert world.output(passing(Output="{% $states.input.rows[k=1][] %}"), data) == [{"k": 1}]


def test_results_are_plain_json(world: World) -> None:
    output = {
        "range": "{% [1..4] %}",
        "whole": "{% 10 / 5 %}",
        "fraction": "{% 1 / 4 %}",
        "big": "{% $states.input.big %}",
        "object": "{% $merge([{'a': 1}, {'b': [1..2]}]) %}",
    }
    assert world.output(passing(Output=output), {"big": 9007199254740993}) == {
        "range": [1, 2, 3, 4],
        "whole": 2,
        "fraction": 0.25,
        "big": 9007199254740993,
        "object": {"a": 1, "b": [1, 2]},
    }


@pytest.mark.parametrize(
    "expression",
    ["1 / 0", "$number('x')", "'a' > 1", "$error('own text')", "$sum", "function($x){$x}", "$unknown(1)", "$hash('a')"],
)
def test_every_failure_is_a_query_evaluation_error(world: World, expression: str) -> None:
    error, cause = world.error(passing(Output=f"{{% {expression} %}}"))
    assert error == "States.QueryEvaluationError"
    assert f"'{expression}'" in str(cause)


def test_functions_that_aws_adds(world: World) -> None:
    output = {
        "parse": "{% $parse('{\"a\": null}') %}",
        "partition": "{% $partition([1..5], 2) %}",
        "range": "{% $range(0, 10, 5) %}",
        "back": "{% $range(3, 1, -1) %}",
        "hash": "{% $hash('abc', 'SHA-1') %}",
        "seeded": "{% $random(7) = $random(7) %}",
        "uuid": "{% $length($uuid()) %}",
        "now": "{% $toMillis($now()) > 1600000000000 %}",
    }
    assert world.output(passing(Output=output)) == {
        "parse": {"a": None},
        "partition": [[1, 2], [3, 4], [5]],
        "range": [0, 5, 10],
        "back": [3, 2, 1],
        "hash": "a9993e364706816aba3e25717850c26c9cd0d89d",
        "seeded": True,
        "uuid": 36,
        "now": True,
    }


def test_inline_map_reads_outer_variables_and_keeps_its_own(world: World) -> None:
    inner = {
        "In": {"Type": "Pass", "Assign": {"own": "{% $states.input * $factor %}"}, "Next": "Out"},
        "Out": {**END, "Output": "{% $own %}"},
    }
    states = {
        "Set": {"Type": "Pass", "Assign": {"factor": 3}, "Next": "Each"},
        "Each": inline(inner, Next="After"),
        "After": {**END, "Output": {"all": "{% $states.input %}", "leaked": "{% $exists($own) %}"}},
    }
    assert world.output(machine(states), [1, 2]) == {"all": [3, 6], "leaked": False}


def test_distributed_map_sees_no_outer_variable(world: World) -> None:
    world.s3.objects["bucket", "manifest.json"] = b"[1]"
    states = {
        "Set": {"Type": "Pass", "Assign": {"job": "nightly"}, "Next": "Each"},
        "Each": distributed({"In": {**END, "Output": {"seen": "{% $exists($job) %}"}}}),
    }
    assert world.output(machine(states)) == [{"seen": False}]
    states["Each"] = distributed({"In": {**END, "Output": "{% $job %}"}})
    assert world.error(machine(states))[0] == "States.ExceedToleratedFailureThreshold"


def test_item_selector_passes_variables_into_a_distributed_map(world: World) -> None:
    world.s3.objects["bucket", "manifest.json"] = b'[{"chunk": 4}, {"chunk": 5}]'
    selector = {
        "job": "{% $job %}",
        "chunk": "{% $states.context.Map.Item.Value.chunk %}",
        "index": "{% $states.context.Map.Item.Index %}",
        "from": "{% $states.input.from %}",
    }
    states = {
        "Set": {"Type": "Pass", "Assign": {"job": "nightly"}, "Next": "Each"},
        "Each": distributed({"In": END}, ItemSelector=selector),
    }
    assert world.output(machine(states), {"from": "input"}) == [
        {"job": "nightly", "chunk": 4, "index": 0, "from": "input"},
        {"job": "nightly", "chunk": 5, "index": 1, "from": "input"},
    ]


def test_concurrent_evaluations_do_not_mix(world: World) -> None:
    inner = {"In": {"Type": "Pass", "Assign": {"mine": "{% $states.input %}"}, "Next": "Out"}, "Out": END}
    inner["Out"] = {**END, "Output": "{% ($double := function($x){ $x * 2 }; $double($mine)) %}"}
    assert world.output(machine({"Each": inline(inner)}), list(range(300))) == [n * 2 for n in range(300)]
