"""INLINE Map: order, concurrency, failure of an iteration, events."""

from __future__ import annotations

import threading
from typing import Any

from tests.statemachine.interpreter.world import PATIENCE, FunctionError, World, inline, machine, task

END: dict[str, Any] = {"Type": "Pass", "End": True}


def test_results_keep_the_order_of_the_items(world: World) -> None:
    last_first = threading.Event()

    def work(payload: int) -> int:
        if payload == 1:
            last_first.set()
        else:
            assert last_first.wait(PATIENCE)
        return payload * 10

    world.functions["work"] = work
    assert world.output(machine({"Each": inline({"In": task("work")})}), [3, 2, 1]) == [30, 20, 10]


def test_items_selector_and_context(world: World) -> None:
    each = inline(
        {"In": {**END, "Output": ["{% $states.input %}", "{% $states.context.Map.Item.Index %}"]}},
        Items="{% $states.input.rows %}",
        ItemSelector={"row": "{% $states.context.Map.Item.Value %}", "of": "{% $states.input.of %}"},
    )
    assert world.output(machine({"Each": each}), {"rows": ["a", "b"], "of": 2}) == [
        [{"row": "a", "of": 2}, 0],
        [{"row": "b", "of": 2}, 1],
    ]


def test_an_empty_map_succeeds(world: World) -> None:
    assert world.output(machine({"Each": inline({"In": END}, Items=[])}), {}) == []


def test_items_must_be_an_array(world: World) -> None:
    assert world.run(machine({"Each": inline({"In": END})}), {"a": 1})["status"] == "FAILED"
    error, cause = world.error(machine({"Each": inline({"In": END}, Items="{% 'text' %}")}))
    assert error == "States.QueryEvaluationError"
    assert "'Items'" in str(cause)


def test_concurrency_is_bounded(world: World) -> None:
    lock = threading.Lock()
    full = threading.Barrier(3)
    running = highest = 0

    def work(payload: int) -> int:
        nonlocal running, highest
        with lock:
            running += 1
            highest = max(highest, running)
        full.wait(PATIENCE)
        with lock:
            running -= 1
        return payload

    world.functions["work"] = work
    each = inline({"In": task("work")}, MaxConcurrency="{% $count($states.input) - 6 %}")
    assert world.output(machine({"Each": each}), list(range(9))) == list(range(9))
    assert highest == 3


def test_a_failing_iteration_fails_the_map_with_its_own_error(world: World) -> None:
    def work(payload: int) -> int:
        if payload == 2:
            raise FunctionError("Broken")
        return payload

    world.functions["work"] = work
    each = inline({"In": task("work")}, MaxConcurrency=1, Catch=[{"ErrorEquals": ["Broken"], "Next": "Caught"}])
    arn = world.start(machine({"Each": each, "Caught": {"Type": "Succeed"}}), [1, 2, 3])
    assert world.wait(arn)["status"] == "SUCCEEDED"
    assert len(world.timeouts) == 2
    kinds = world.kinds(arn)
    assert kinds.count("MapIterationStarted") == 2
    assert kinds.count("MapIterationSucceeded") == 1
    assert kinds[-6:] == [
        "MapIterationFailed",
        "MapStateFailed",
        "MapStateExited",
        "SucceedStateEntered",
        "SucceedStateExited",
        "ExecutionSucceeded",
    ]


def test_a_failure_does_not_wait_for_slow_siblings(world: World) -> None:
    started, release = threading.Event(), threading.Event()

    def work(payload: str) -> str:
        if payload == "slow":
            started.set()
            release.wait(PATIENCE)
            return payload
        assert started.wait(PATIENCE)
        raise FunctionError("Broken")

    world.functions["work"] = work
    arn = world.start(machine({"Each": inline({"In": task("work")})}), ["slow", "broken"])
    try:
        assert world.wait(arn)["error"] == "Broken"
        events = len(world.history(arn))
    finally:
        release.set()
    assert len(world.history(arn)) == events


def test_a_map_can_be_retried(world: World) -> None:
    failures = iter([True, False])

    def work(payload: int) -> int:
        if next(failures):
            raise FunctionError("Busy")
        return payload

    world.functions["work"] = work
    each = inline({"In": task("work")}, Retry=[{"ErrorEquals": ["Busy"], "IntervalSeconds": 4}])
    assert world.output(machine({"Each": each}), [7]) == [7]
    assert world.pauses == [4]


def test_events_of_each_iteration_form_a_chain(world: World) -> None:
    arn = world.start(machine({"Each": inline({"In": task()})}), [1, 2])
    world.wait(arn)
    events = {event["id"]: event for event in world.history(arn)}
    started = [event for event in events.values() if event["type"] == "MapIterationStarted"]
    assert sorted(event["mapIterationStartedEventDetails"]["index"] for event in started) == [0, 1]
    ended = [event for event in events.values() if event["type"] == "MapIterationSucceeded"]
    assert len(ended) == 2
    for last in ended:
        chain = [last]
        while chain[-1]["type"] != "MapStateStarted":
            chain.append(events[chain[-1]["previousEventId"]])
        assert [event["type"] for event in chain] == [
            "MapIterationSucceeded",
            "TaskStateExited",
            "TaskSucceeded",
            "TaskStarted",
            "TaskScheduled",
            "TaskStateEntered",
            "MapIterationStarted",
            "MapStateStarted",
        ]


def test_maps_nest(world: World) -> None:
    inner = inline({"In": {**END, "Output": "{% $states.input + 1 %}"}})
    assert world.output(machine({"Outer": inline({"Inner": inner})}), [[1, 2], [], [3]]) == [[2, 3], [], [4]]
