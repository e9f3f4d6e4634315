"""Each kind of state, and how data passes between them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from tests.statemachine.interpreter.world import FunctionError, World, machine, passing, task


def test_pass_hands_on_its_input_or_output(world: World) -> None:
    assert world.output(passing(), {"a": None, "b": [1]}) == {"a": None, "b": [1]}
    assert world.output(passing(Output={"x": "{% $states.input.b[0] + 1 %}", "y": "plain"}), {"b": [1]}) == {
        "x": 2,
        "y": "plain",
    }


def test_task_invokes_a_function_and_keeps_the_whole_result(world: World) -> None:
    seen = []
    world.functions["work"] = lambda payload: seen.append(payload) or {"done": True}
    result = world.output(machine({"Work": {k: v for k, v in task("work").items() if k != "Output"}}), {"n": 1})
    assert seen == [{"n": 1}]
    assert result["Payload"] == {"done": True}
    assert result["StatusCode"] == 200
    assert result["ExecutedVersion"] == "$LATEST"


def test_function_answers_may_be_any_json(world: World) -> None:
    for answer in (None, 1, "text", [1, None], {"ä": "€"}):
        world.functions["work"] = lambda payload, answer=answer: answer
        assert world.output(machine({"Work": task("work")})) == answer


def test_choice_takes_the_first_true_rule_or_the_default(world: World) -> None:
    choice = {
        "Type": "Choice",
        "Choices": [
            {"Condition": "{% $states.input.n > 10 %}", "Next": "Big", "Output": {"was": "{% $states.input.n %}"}},
            {"Condition": "{% $states.input.n > 5 %}", "Next": "Middle", "Assign": {"seen": "{% 'rule' %}"}},
        ],
        "Default": "Small",
        "Assign": {"seen": "default"},
    }
    end = {"Type": "Pass", "Output": "{% $states.context.State.Name & $seen %}", "End": True}
    states = {"Pick": choice, "Big": {"Type": "Pass", "End": True}, "Middle": end, "Small": end}
    assert world.output(machine(states), {"n": 11}) == {"was": 11}
    assert world.output(machine(states), {"n": 6}) == "Middlerule"
    assert world.output(machine(states), {"n": 0}) == "Smalldefault"


def test_choice_without_a_match_and_default_fails(world: World) -> None:
    states = {
        "Pick": {"Type": "Choice", "Choices": [{"Condition": "{% false %}", "Next": "End"}]},
        "End": {"Type": "Succeed"},
    }
    error, cause = world.error(machine(states))
    assert error == "States.NoChoiceMatched"
    assert "'Pick'" in str(cause)


def test_choice_condition_must_be_boolean(world: World) -> None:
    states = {
        "Pick": {"Type": "Choice", "Choices": [{"Condition": "{% 1 %}", "Next": "End"}], "Default": "End"},
        "End": {"Type": "Succeed"},
    }
    error, cause = world.error(machine(states))
    assert error == "States.QueryEvaluationError"
    assert "Choices[0]/Condition" in str(cause)
    assert "boolean" in str(cause)


@pytest.mark.parametrize(
    ("members", "seconds"),
    [
        ({"Seconds": 90}, 90),
        ({"Seconds": "{% $states.input.wait %}"}, 7),
        ({"Seconds": 0}, 0),
        ({"Timestamp": "2001-01-01T00:00:00Z"}, 0),
    ],
)
def test_wait_lasts_as_long_as_it_says(world: World, members: dict[str, object], seconds: float) -> None:
    assert world.output(machine({"Wait": {"Type": "Wait", **members, "End": True}}), {"wait": 7}) == {"wait": 7}
    assert world.pauses == [seconds]


@pytest.mark.parametrize("seconds", ["{% 1.5 %}", "{% -1 %}", "{% '5' %}", "{% true %}"])
def test_wait_refuses_other_lengths(world: World, seconds: str) -> None:
    error, cause = world.error(machine({"Wait": {"Type": "Wait", "Seconds": seconds, "End": True}}))
    assert error == "States.QueryEvaluationError"
    assert "'Seconds'" in str(cause)


@pytest.mark.parametrize("text", ["noon", "2026-01-01T00:00:00"])
def test_wait_until_a_text_that_is_no_timestamp_fails(world: World, text: str) -> None:
    definition = machine({"Wait": {"Type": "Wait", "Timestamp": f"{{% '{text}' %}}", "End": True}})
    assert world.error(definition)[0] == "States.QueryEvaluationError"


def test_wait_until_a_time_to_come(world: World) -> None:
    definition = machine({"Wait": {"Type": "Wait", "Timestamp": "{% $states.input %}", "End": True}})
    world.output(definition, datetime.fromtimestamp(world.clock.now() + 600, UTC).isoformat())
    (pause,) = world.pauses
    assert 0 < pause <= 600


def test_succeed_may_shape_its_output(world: World) -> None:
    assert world.output(machine({"End": {"Type": "Succeed", "Output": {"n": "{% 1 + 1 %}"}}})) == {"n": 2}


def test_fail_evaluates_error_and_cause(world: World) -> None:
    fail = {"Type": "Fail", "Error": "{% $states.input.e & 'Error' %}", "Cause": "{% 'run ' & $string(7) %}"}
    assert world.error(machine({"Stop": fail}), {"e": "Terminal"}) == ("TerminalError", "run 7")
    assert world.error(machine({"Stop": {"Type": "Fail"}})) == (None, None)


def test_fail_with_a_cause_that_is_no_string(world: World) -> None:
    error, cause = world.error(machine({"Stop": {"Type": "Fail", "Error": "E", "Cause": "{% 1 %}"}}))
    assert error == "States.QueryEvaluationError"
    assert "'Cause'" in str(cause)


def test_context_tells_where_the_execution_is(world: World) -> None:
    arn = world.create(passing(Output="{% $states.context %}"), "described")
    started = world.call("StartExecution", stateMachineArn=arn, name="run-1", input='{"a":null}')
    context = json.loads(world.wait(started["executionArn"])["output"])
    assert context["Execution"]["Id"] == started["executionArn"]
    assert context["Execution"]["Name"] == "run-1"
    assert context["Execution"]["Input"] == {"a": None}
    assert context["StateMachine"] == {"Id": arn, "Name": "described"}
    assert context["State"]["Name"] == "Only"
    assert context["State"]["RetryCount"] == 0
    assert context["State"]["EnteredTime"].endswith("Z")


def test_retry_count_shows_in_the_context(world: World) -> None:
    seen = []

    def work(payload: object) -> None:
        seen.append(payload)
        raise FunctionError("Broken")

    world.functions["work"] = work
    arguments = {"FunctionName": "work", "Payload": "{% $states.context.State.RetryCount %}"}
    retry = [{"ErrorEquals": ["Broken"], "MaxAttempts": 2}]
    world.error(machine({"Work": task("work", Arguments=arguments, Retry=retry)}))
    assert seen == [0, 1, 2]
