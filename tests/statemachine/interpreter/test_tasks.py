"""Tasks that publish to SNS or start another execution."""

from __future__ import annotations

import json
from typing import Any

from tests.statemachine.interpreter.world import FunctionError, World, machine, passing, task

START = "arn:aws:states:::states:startExecution.sync:2"
PUBLISH = "arn:aws:states:::sns:publish"


def calling(resource: str, **members: Any) -> dict[str, Any]:
    return machine({"Call": {"Type": "Task", "Resource": resource, "End": True, **members}})


def test_publish_sends_objects_as_text(world: World) -> None:
    arguments = {
        "TopicArn": "topic",
        "Subject": "{% 'run ' & $states.input.n %}",
        "Message": {"n": "{% $states.input.n %}"},
    }
    output = world.output(calling(PUBLISH, Arguments=arguments), {"n": 7})
    assert world.published == [{"TopicArn": "topic", "Subject": "run 7", "Message": '{"n":7}'}]
    assert output["MessageId"] == "m-1"


def test_publish_reports_the_services_error(world: World) -> None:
    arguments = {"TopicArn": "missing", "Message": "text"}
    assert world.error(calling(PUBLISH, Arguments=arguments)) == ("SNS.NotFoundException", "refused")


def test_a_nested_execution_hands_back_its_output(world: World) -> None:
    inner = world.create(passing(Output={"got": "{% $states.input.n %}"}))
    arguments = {"StateMachineArn": inner, "Input": {"n": "{% $states.input.n %}"}, "Name": "inner-run"}
    arn = world.start(calling(START, Arguments=arguments), {"n": 3})
    result = json.loads(world.wait(arn)["output"])
    assert result["Output"] == {"got": 3}
    assert result["Input"] == {"n": 3}
    assert result["Status"] == "SUCCEEDED"
    assert result["ExecutionArn"].endswith(":inner-run")
    assert "TaskSubmitted" in world.kinds(arn)


def test_a_nested_failure_fails_the_task(world: World) -> None:
    inner = world.create(machine({"Stop": {"Type": "Fail", "Error": "TerminalError", "Cause": "no"}}))
    error, cause = world.error(calling(START, Arguments={"StateMachineArn": inner}))
    assert error == "States.TaskFailed"
    described = json.loads(str(cause))
    assert (described["Status"], described["Error"], described["Cause"]) == ("FAILED", "TerminalError", "no")


def test_a_nested_machine_that_is_not_there(world: World) -> None:
    error, _ = world.error(calling(START, Arguments={"StateMachineArn": "arn:aws:states:::stateMachine:none"}))
    assert error == "StepFunctions.StateMachineDoesNotExistException"


def test_a_name_can_only_be_used_once(world: World) -> None:
    arguments = {"StateMachineArn": world.create(passing()), "Name": "once"}
    definition = calling(START, Arguments=arguments)
    world.output(definition)
    assert world.error(definition)[0] == "StepFunctions.ExecutionAlreadyExistsException"


def test_stopping_the_outer_execution_stops_the_inner_one(slow_world: World) -> None:
    world = slow_world
    inner = world.create(machine({"Wait": {"Type": "Wait", "Seconds": 3600, "End": True}}))
    submitted = calling(START, Arguments={"StateMachineArn": inner, "Name": "inner-run"})
    arn = world.start(submitted)
    inner_arn = inner.replace(":stateMachine:", ":execution:") + ":inner-run"
    world.until(lambda: world.service.handle("DescribeExecution", {"executionArn": inner_arn})[0] == 200)
    world.call("StopExecution", executionArn=arn)
    assert world.wait(inner_arn)["status"] == "ABORTED"


def test_a_nested_execution_may_take_too_long(slow_world: World) -> None:
    world = slow_world
    inner = world.create(machine({"Wait": {"Type": "Wait", "Seconds": 3600, "End": True}}))
    arguments = {"StateMachineArn": inner, "Name": "inner-run"}
    assert world.error(calling(START, Arguments=arguments, TimeoutSeconds=1))[0] == "States.Timeout"
    inner_arn = inner.replace(":stateMachine:", ":execution:") + ":inner-run"
    assert world.wait(inner_arn)["status"] == "ABORTED"


def test_events_of_a_task(world: World) -> None:
    world.functions["work"] = _twice()
    arn = world.start(machine({"Work": task("work", TimeoutSeconds=60, Retry=[{"ErrorEquals": ["Busy"]}])}), {"n": 1})
    world.wait(arn)
    events = world.history(arn)
    assert [event["type"] for event in events] == [
        "ExecutionStarted",
        "TaskStateEntered",
        "TaskScheduled",
        "TaskStarted",
        "TaskFailed",
        "TaskScheduled",
        "TaskStarted",
        "TaskSucceeded",
        "TaskStateExited",
        "ExecutionSucceeded",
    ]
    assert [event["id"] for event in events] == list(range(1, 11))
    assert [event["previousEventId"] for event in events] == list(range(10))
    scheduled = events[2]["taskScheduledEventDetails"]
    assert json.loads(scheduled["parameters"]) == {"FunctionName": "work", "Payload": {"n": 1}}
    assert (scheduled["resourceType"], scheduled["resource"]) == ("lambda", "invoke")
    assert scheduled["timeoutInSeconds"] == 60
    assert events[4]["taskFailedEventDetails"]["error"] == "Busy"
    assert json.loads(events[7]["taskSucceededEventDetails"]["output"])["Payload"] == "done"


def _twice() -> Any:
    answers = iter([FunctionError("Busy"), "done"])

    def work(payload: Any) -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return work
