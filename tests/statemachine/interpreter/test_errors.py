"""Error names, Retry, Catch, timeouts and the payload limit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from infra.local.states import LambdaResult
from infra.local.states.definition import Retrier
from infra.local.states.retry import Attempts, matches
from tests.statemachine.interpreter.world import FunctionError, ServiceError, World, machine, passing, task

KIB = 1024
ALL = [{"ErrorEquals": ["States.ALL"], "MaxAttempts": 2}]
CATCH_ALL = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]


def failing(times: int, error: Exception) -> Callable[[Any], Any]:
    """A function that fails so often and then answers the number of its calls."""
    calls = 0

    def work(payload: Any) -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise error
        return calls

    return work


def test_a_functions_error_name_is_its_error_type(world: World) -> None:
    world.functions["work"] = failing(9, FunctionError("ChunkBusyError", "held by another attempt"))
    error, cause = world.error(machine({"Work": task("work")}))
    assert error == "ChunkBusyError"
    assert json.loads(str(cause)) == {"errorType": "ChunkBusyError", "errorMessage": "held by another attempt"}


@pytest.mark.parametrize(
    "name",
    ["Lambda.TooManyRequestsException", "Lambda.ServiceException", "Lambda.Unknown", "Sandbox.Timedout"],
)
def test_service_problems_keep_their_name(world: World, name: str) -> None:
    world.functions["work"] = failing(9, ServiceError(name))
    assert world.error(machine({"Work": task("work")})) == (name, "the service says no")


def test_an_error_payload_without_a_type_is_unknown(world: World) -> None:
    for payload in (b"", b"killed", b"{}", b"[]"):
        result = LambdaResult(payload, function_error="Unhandled")
        world.service.environment.invoke_lambda = lambda function, data, timeout, result=result: result
        assert world.error(machine({"Work": task("work")})) == ("Lambda.Unknown", payload.decode())


def test_an_answer_that_is_no_json_is_a_text(world: World) -> None:
    world.service.environment.invoke_lambda = lambda function, payload, timeout: LambdaResult(b"not { json")
    assert world.output(machine({"Work": task("work")})) == "not { json"


def test_an_invocation_that_breaks_is_a_client_error(world: World) -> None:
    assert world.error(machine({"Work": task("no such function")}))[0] == "Lambda.SdkClientException"


@pytest.mark.parametrize(
    ("patterns", "error", "expected"),
    [
        (["ChunkBusyError"], "ChunkBusyError", True),
        (["ChunkBusyError"], "ChunkBusy", False),
        (["States.ALL"], "ChunkBusyError", True),
        (["States.ALL"], "States.Timeout", True),
        (["States.ALL"], "States.QueryEvaluationError", True),
        (["States.ALL"], "States.DataLimitExceeded", False),
        (["States.ALL"], "States.Runtime", False),
        (["States.ALL"], None, True),
        (["States.TaskFailed"], "ChunkBusyError", True),
        (["States.TaskFailed"], "Lambda.Unknown", True),
        (["States.TaskFailed"], "States.Timeout", False),
        (["States.TaskFailed"], "States.DataLimitExceeded", False),
        (["States.DataLimitExceeded"], "States.DataLimitExceeded", True),
        (["States.Runtime"], "States.Runtime", False),
        (["States.Timeout"], "Sandbox.Timedout", False),
    ],
)
def test_matching(patterns: list[str], error: str | None, expected: bool) -> None:
    assert matches(patterns, error) is expected


def test_retry_waits_grow_up_to_the_maximum(world: World) -> None:
    world.functions["work"] = failing(5, FunctionError("Busy"))
    retrier = {"ErrorEquals": ["Busy"], "IntervalSeconds": 2, "MaxAttempts": 5, "BackoffRate": 3, "MaxDelaySeconds": 20}
    assert world.output(machine({"Work": task("work", Retry=[retrier])})) == 6
    assert world.pauses == [2, 6, 18, 20, 20]


def test_retry_has_the_services_defaults(world: World) -> None:
    world.functions["work"] = failing(9, FunctionError("Busy"))
    definition = machine({"Work": task("work", Retry=[{"ErrorEquals": ["States.ALL"]}])})
    assert world.error(definition)[0] == "Busy"
    assert world.pauses == [1, 2, 4]


def test_zero_attempts_shadow_later_retriers(world: World) -> None:
    world.functions["work"] = failing(9, FunctionError("TerminalError"))
    retry = [{"ErrorEquals": ["TerminalError"], "MaxAttempts": 0}, {"ErrorEquals": ["States.ALL"]}]
    assert world.error(machine({"Work": task("work", Retry=retry)}))[0] == "TerminalError"
    assert world.pauses == []


def test_each_retrier_counts_for_itself(world: World) -> None:
    errors = iter(["A", "B", "A", "B", "A"])

    def work(payload: Any) -> str:
        raise FunctionError(next(errors))

    world.functions["work"] = work
    retry = [
        {"ErrorEquals": ["A"], "IntervalSeconds": 10, "MaxAttempts": 2, "BackoffRate": 2},
        {"ErrorEquals": ["B"], "IntervalSeconds": 1, "MaxAttempts": 2, "BackoffRate": 3},
    ]
    assert world.error(machine({"Work": task("work", Retry=retry)}))[0] == "A"
    assert world.pauses == [10, 1, 20, 3]


def test_full_jitter_draws_from_zero_to_the_interval() -> None:
    retrier = Retrier(("States.ALL",), interval=10, max_attempts=1000, backoff=1.0, full_jitter=True)
    attempts = Attempts([retrier], random.Random(1))
    delays = [attempts.next_delay("Busy") for _ in range(1000)]
    assert all(delay is not None and 0 <= delay <= 10 for delay in delays)
    assert any(delay is not None and delay < 1 for delay in delays)
    assert any(delay is not None and delay > 9 for delay in delays)


def test_intervals_do_not_overflow() -> None:
    attempts = Attempts([Retrier(("States.ALL",), max_attempts=5000, max_delay=60)])
    assert [attempts.next_delay("Busy") for _ in range(3000)][-1] == 60


def test_an_evaluation_error_in_a_task_can_be_retried_and_caught(world: World) -> None:
    work = task(
        Output="{% $states.result.Payload.missing %}",
        Retry=[{"ErrorEquals": ["States.QueryEvaluationError"], "MaxAttempts": 1}],
        Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Caught"}],
    )
    caught = {"Type": "Pass", "Output": "{% $states.input.Error %}", "End": True}
    assert world.output(machine({"Work": work, "Caught": caught})) == "States.QueryEvaluationError"
    assert world.pauses == [1]


def test_catch_hands_on_the_error(world: World) -> None:
    world.functions["work"] = failing(9, FunctionError("TerminalError", "no such table"))
    states = {
        "Work": task("work", Catch=[{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]),
        "Caught": {"Type": "Succeed"},
    }
    output = world.output(machine(states))
    assert output["Error"] == "TerminalError"
    assert "no such table" in output["Cause"]


def test_catch_may_assign_and_shape_its_output(world: World) -> None:
    world.functions["work"] = failing(9, FunctionError("TerminalError"))
    catcher = {
        "ErrorEquals": ["TerminalError"],
        "Assign": {"error": "{% $states.errorOutput %}"},
        "Output": {"input": "{% $states.input %}", "error": "{% $states.errorOutput.Error %}"},
        "Next": "Caught",
    }
    other = {"ErrorEquals": ["Other"], "Next": "Wrong"}
    last = {"Type": "Pass", "Output": ["{% $states.input %}", "{% $error.Error %}"], "End": True}
    states = {"Work": task("work", Catch=[other, catcher]), "Caught": last, "Wrong": {"Type": "Fail"}}
    assert world.output(machine(states), {"n": 1}) == [{"input": {"n": 1}, "error": "TerminalError"}, "TerminalError"]


def test_an_error_that_no_catcher_takes_ends_the_execution(world: World) -> None:
    world.functions["work"] = failing(9, FunctionError("TerminalError"))
    states = {"Work": task("work", Catch=[{"ErrorEquals": ["Other"], "Next": "Caught"}]), "Caught": {"Type": "Succeed"}}
    assert world.error(machine(states))[0] == "TerminalError"


def timed_out(payload: Any) -> Any:
    raise TimeoutError


def test_a_task_that_takes_too_long_times_out(world: World) -> None:
    world.functions["work"] = timed_out
    states = {
        "Work": task(
            "work",
            TimeoutSeconds="{% $states.input.limit %}",
            Catch=[{"ErrorEquals": ["States.Timeout"], "Next": "Late"}],
        ),
        "Late": {"Type": "Succeed"},
    }
    arn = world.start(machine(states), {"limit": 15})
    assert json.loads(world.wait(arn)["output"]) == {"Error": "States.Timeout", "Cause": ""}
    assert world.timeouts == [15]
    assert "TaskTimedOut" in world.kinds(arn)


def test_a_timeout_is_no_task_failure(world: World) -> None:
    world.functions["work"] = timed_out
    retry = [{"ErrorEquals": ["States.TaskFailed"]}]
    assert world.error(machine({"Work": task("work", TimeoutSeconds=1, Retry=retry)})) == ("States.Timeout", None)
    assert world.pauses == []


def test_an_execution_ends_at_its_own_timeout(world: World) -> None:
    states = {"Wait": {"Type": "Wait", "Seconds": 3600, "Next": "End"}, "End": {"Type": "Succeed"}}
    arn = world.start(machine(states, TimeoutSeconds=60))
    answer = world.wait(arn)
    assert answer["status"] == "TIMED_OUT"
    (pause,) = world.pauses
    assert 0 < pause <= 60
    assert world.kinds(arn) == ["ExecutionStarted", "WaitStateEntered", "ExecutionTimedOut"]


def test_a_timeout_without_any_limit_is_the_tasks(world: World) -> None:
    world.functions["work"] = timed_out
    assert world.error(machine({"Work": task("work")}))[0] == "States.Timeout"
    assert world.error(machine({"Work": task("work", TimeoutSeconds=5)}, TimeoutSeconds=60))[0] == "States.Timeout"


def test_an_executions_timeout_bounds_its_functions(world: World) -> None:
    world.functions["work"] = timed_out
    states = {"Work": task("work", Catch=[{"ErrorEquals": ["States.ALL"], "Next": "End"}]), "End": {"Type": "Succeed"}}
    assert world.run(machine(states, TimeoutSeconds=60))["status"] == "TIMED_OUT"
    (timeout,) = world.timeouts
    assert 0 < timeout <= 60


def test_shortened_waits_count_towards_the_executions_timeout(world: World) -> None:
    wait = {"Type": "Wait", "Seconds": 40}
    states = {"One": {**wait, "Next": "Two"}, "Two": {**wait, "End": True}}
    assert world.run(machine(states, TimeoutSeconds=60))["status"] == "TIMED_OUT"
    assert world.run(machine(states, TimeoutSeconds=90))["status"] == "SUCCEEDED"


@pytest.mark.parametrize("arguments", ["{% [1] %}", "{% {'Payload': 1} %}"])
def test_arguments_without_a_function_end_the_execution(world: World, arguments: str) -> None:
    states = {"Work": task(Arguments=arguments, Catch=CATCH_ALL), "Caught": {"Type": "Succeed"}}
    error, cause = world.error(machine(states))
    assert error == "States.Runtime"
    assert "'FunctionName'" in str(cause)


def text_of(kib: int) -> str:
    return f"{{% $join([1..{kib}].('{'x' * KIB}')) %}}"


def test_state_data_ends_at_256_kib(world: World) -> None:
    assert len(world.output(passing(Output=text_of(255)))) == 255 * KIB
    error, _ = world.error(passing(Output=text_of(257)))
    assert error == "States.DataLimitExceeded"


def test_the_limit_counts_bytes(world: World) -> None:
    assert world.output(passing(Output=f"{{% $states.input & '{'ä' * 10}' %}}"), "ä" * 131_000)
    assert (
        world.error(passing(Output="{% $states.input & $states.input %}"), "ä" * 66_000)[0]
        == "States.DataLimitExceeded"
    )


@pytest.mark.parametrize(("kib", "caught"), [(255, "fits"), (257, None)])
def test_a_too_large_answer_is_neither_retried_nor_caught(world: World, kib: int, caught: str | None) -> None:
    world.functions["work"] = lambda payload: "x" * (kib * KIB)
    work = task("work", Output="fits", Retry=ALL, Catch=CATCH_ALL)
    definition = machine({"Work": work, "Caught": {"Type": "Pass", "Output": "caught", "End": True}})
    if caught:
        assert world.output(definition) == caught
    else:
        assert world.error(definition)[0] == "States.DataLimitExceeded"
    assert world.pauses == []
    assert len(world.timeouts) == 1


def test_too_large_arguments_never_reach_the_function(world: World) -> None:
    arguments = {"FunctionName": "echo", "Payload": text_of(257)}
    assert world.error(machine({"Work": task(Arguments=arguments)}))[0] == "States.DataLimitExceeded"
    assert world.timeouts == []


def test_a_too_large_variable_ends_the_execution(world: World) -> None:
    assert world.error(passing(Assign={"big": text_of(257)}))[0] == "States.DataLimitExceeded"


def test_an_output_may_be_small_where_the_input_was_large(world: World) -> None:
    world.functions["work"] = lambda payload: {"keep": 1, "rest": "x" * (200 * KIB)}
    assert world.output(machine({"Work": task("work", Output="{% $states.result.Payload.keep %}")})) == 1


def test_history_has_a_limit_that_nothing_catches(world: World) -> None:
    states = {
        "Loop": {"Type": "Pass", "Assign": {"n": "{% $exists($n) ? $n + 1 : 0 %}"}, "Next": "Again"},
        "Again": {"Type": "Choice", "Choices": [{"Condition": "{% $n < 0 %}", "Next": "End"}], "Default": "Loop"},
        "End": {"Type": "Succeed"},
    }
    arn = world.start(machine(states))
    answer = world.wait(arn)
    assert (answer["status"], answer["error"]) == ("FAILED", "States.Runtime")
    assert "25000" in answer["cause"]
    last = world.call("GetExecutionHistory", executionArn=arn, maxResults=1, reverseOrder=True)["events"][0]
    assert (last["id"], last["type"]) == (25_000, "ExecutionFailed")
