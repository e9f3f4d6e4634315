"""Executions as a whole: names, stopping, bounded memory, and the clock."""

from __future__ import annotations

import json
import math
import threading

import pytest

from infra.local.states import Clock
from infra.local.states.clock import Scope
from infra.local.states.errors import DeadlinePassed, Stopped
from infra.local.states.history import History
from tests.statemachine.interpreter.world import PATIENCE, ROLE, World, distributed, machine, passing, task

WAITING = machine({"Wait": {"Type": "Wait", "Seconds": 3600, "End": True}})


def test_the_same_start_again_is_the_same_execution(slow_world: World) -> None:
    world = slow_world
    arn = world.create(WAITING)
    first = world.call("StartExecution", stateMachineArn=arn, name="night", input='{"a":1}')
    assert world.call("StartExecution", stateMachineArn=arn, name="night", input='{"a":1}') == first
    code, _ = world.refused("StartExecution", stateMachineArn=arn, name="night", input='{"a":2}')
    assert code == "ExecutionAlreadyExists"
    world.call("StopExecution", executionArn=first["executionArn"])
    code, _ = world.refused("StartExecution", stateMachineArn=arn, name="night", input='{"a":1}')
    assert code == "ExecutionAlreadyExists"


def test_a_stop_interrupts_a_wait(slow_world: World) -> None:
    arn = slow_world.start(WAITING)
    slow_world.call("StopExecution", executionArn=arn)
    answer = slow_world.wait(arn)
    assert answer["status"] == "ABORTED"
    assert "error" not in answer
    assert slow_world.kinds(arn)[-1] == "ExecutionAborted"


def test_a_stop_does_not_change_what_has_ended(world: World) -> None:
    arn = world.start(passing())
    ended = world.wait(arn)
    assert world.call("StopExecution", executionArn=arn) == {"stopDate": ended["stopDate"]}
    assert world.wait(arn) == ended


def test_close_aborts_what_runs_and_refuses_more(slow_world: World) -> None:
    arn = slow_world.start(WAITING)
    slow_world.service.close()
    assert slow_world.wait(arn)["status"] == "ABORTED"
    machine_arn = slow_world.call("DescribeExecution", executionArn=arn)["stateMachineArn"]
    assert slow_world.service.handle("StartExecution", {"stateMachineArn": machine_arn})[0] == 503


def test_an_update_leaves_running_executions_alone(world: World) -> None:
    hold, go = threading.Event(), threading.Event()

    def work(payload: object) -> str:
        go.set()
        assert hold.wait(PATIENCE)
        return "old"

    world.functions["work"] = work
    old = machine({"Work": task("work", Next="End"), "End": {"Type": "Succeed"}})
    arn = world.start(old)
    assert go.wait(PATIENCE)
    machine_arn = world.service.execution(arn).machine_arn
    world.call("UpdateStateMachine", stateMachineArn=machine_arn, definition=json.dumps(passing(Output="new")))
    hold.set()
    assert world.wait(arn)["output"] == '"old"'
    again = world.call("StartExecution", stateMachineArn=machine_arn)
    assert world.wait(again["executionArn"])["output"] == '"new"'


def test_old_executions_are_forgotten_with_their_map_runs() -> None:
    world = World(keep_executions=2)
    world.s3.objects["bucket", "manifest.json"] = b"[1]"
    arn = world.create(machine({"Each": distributed({"In": {"Type": "Pass", "End": True}})}))
    arns, runs, children = [], [], []
    for _ in range(4):
        execution = world.call("StartExecution", stateMachineArn=arn)["executionArn"]
        world.wait(execution)
        arns.append(execution)
        if len(arns) < 3:
            runs.append(world.map_run(execution)["mapRunArn"])
            children.append(world.call("ListExecutions", mapRunArn=runs[-1])["executions"][0]["executionArn"])
    listed = world.call("ListExecutions", stateMachineArn=arn)["executions"]
    assert [execution["executionArn"] for execution in listed] == [arns[3], arns[2]]
    assert world.refused("DescribeExecution", executionArn=arns[0])[0] == "ExecutionDoesNotExist"
    assert world.refused("DescribeMapRun", mapRunArn=runs[0])[0] == "ResourceNotFound"
    assert world.refused("DescribeExecution", executionArn=children[0])[0] == "ExecutionDoesNotExist"


def test_children_of_old_map_runs_are_forgotten() -> None:
    world = World(keep_children=5)
    world.s3.objects["bucket", "manifest.json"] = b"[1, 2]"
    definition = machine({"Each": distributed({"In": {"Type": "Pass", "End": True}})})
    arns = [world.start(definition) for _ in range(4)]
    for arn in arns:
        world.wait(arn)
    runs = [world.map_run(arn) for arn in arns]
    assert all(run["itemCounts"]["succeeded"] == 2 for run in runs)
    kept = [len(world.call("ListExecutions", mapRunArn=run["mapRunArn"])["executions"]) for run in runs]
    assert sorted(kept) == [0, 0, 2, 2]


@pytest.mark.parametrize("name", ["", "a" * 81, "a b", "a/b", "a:b", "a*"])
def test_illegal_names(world: World, name: str) -> None:
    arn = world.create(passing())
    assert world.refused("StartExecution", stateMachineArn=arn, name=name)[0] == "InvalidName"
    text = json.dumps(passing())
    assert world.refused("CreateStateMachine", name=name, definition=text, roleArn=ROLE)[0] == "InvalidName"


@pytest.mark.parametrize("text", ["{", "", '"' + "x" * 262_143 + '"'])
def test_illegal_inputs(world: World, text: str) -> None:
    arn = world.create(passing())
    assert world.refused("StartExecution", stateMachineArn=arn, input=text)[0] == "InvalidExecutionInput"


def test_a_bug_fails_the_execution_and_not_the_service(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(world.service.environment.tasks, "run", broken)
    error, cause = world.error(machine({"Work": task()}))
    assert error == "States.Runtime"
    assert "a bug" in str(cause)


def test_a_history_can_be_condensed() -> None:
    history = History(Clock())
    for number in range(5):
        history.add("PassStateEntered", number, {"name": "x", "input": "1"})
    history.condense()
    assert [event["id"] for event in history.events()] == [1, 5]


def test_speed_shortens_waits_only() -> None:
    clock = Clock(speed=math.inf)
    scope = Scope(clock, timeout=100)
    scope.sleep(60)
    assert scope.remaining() <= 40
    with pytest.raises(DeadlinePassed):
        scope.sleep(60)


def test_speed_must_be_positive() -> None:
    with pytest.raises(ValueError, match="above zero"):
        Clock(speed=0)


def test_cancelling_a_scope_reaches_everything_below_it() -> None:
    outer = Scope(Clock())
    inner = Scope(outer.clock, Scope(outer.clock, outer))
    stopped = threading.Event()

    def work() -> None:
        try:
            inner.sleep(3600)
        except Stopped:
            stopped.set()

    thread = threading.Thread(target=work)
    thread.start()
    outer.cancel()
    assert stopped.wait(PATIENCE)
    thread.join()
    with pytest.raises(Stopped):
        Scope(outer.clock, outer).check()


def test_a_wait_for_an_event_ends_with_its_deadline() -> None:
    scope = Scope(Clock(), timeout=0.01)
    with pytest.raises(DeadlinePassed):
        scope.wait_for(threading.Event())
    assert Scope(Clock()).wait_for(threading.Event(), 0.01) is False
