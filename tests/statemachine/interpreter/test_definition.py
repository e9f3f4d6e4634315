"""What is refused when a state machine is created, and how clearly."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.local.states.parse import parse
from tests.statemachine.interpreter.world import WRITER, World, distributed, inline, machine, task

ROOT = Path(__file__).parents[3]
END: dict[str, Any] = {"Type": "Pass", "End": True}


def errors(definition: dict[str, Any]) -> list[str]:
    """The errors found in a definition, as text with code and place."""
    return [str(problem) for problem in parse(json.dumps(definition))[1] if problem.severity == "ERROR"]


def test_the_production_state_machine_is_accepted_unmodified() -> None:
    text = (ROOT / "statemachines" / "run_job.asl.json").read_text()
    text = re.sub(r"\$\{(\w+)\}", lambda match: "aws" if match[1] == "Partition" else match[1], text)
    definition, problems = parse(text)
    assert problems == []
    assert definition is not None


def test_refusal_names_state_and_field(world: World) -> None:
    definition = machine({"Work": task(HeartbeatSeconds=5)})
    code, message = world.refused("CreateStateMachine", name="m", definition=json.dumps(definition), roleArn="r")
    assert code == "InvalidDefinition"
    assert message == (
        "Invalid State Machine Definition: 'NOT_SUPPORTED_LOCALLY: State 'Work': field 'HeartbeatSeconds' is not "
        "supported by the local interpreter. at /States/Work/HeartbeatSeconds'"
    )


def test_all_problems_come_at_once() -> None:
    definition = machine(
        {"A": {"Type": "Pass", "ResultPath": "$", "Next": "B"}, "B": {"Type": "Parallel", "End": True}}
    )
    found = errors(definition)
    assert len(found) == 2
    assert "'ResultPath' belongs to JSONPath" in found[0]
    assert "Type 'Parallel' is not one of Task, Pass, Choice" in found[1]


def with_state(name: str = "Work", **members: Any) -> dict[str, Any]:
    return machine({name: {**END, **members}})


def with_map(**members: Any) -> dict[str, Any]:
    return machine({"Each": distributed({"In": END}, **members)})


def changed_map(path: str, value: Any) -> dict[str, Any]:
    definition = copy.deepcopy(with_map(ResultWriter=WRITER))
    *parents, last = path.split("/")
    target = definition["States"]["Each"]
    for parent in parents:
        target = target[parent]
    target[last] = value
    return definition


def retried(**members: Any) -> dict[str, Any]:
    return machine({"Work": task(Retry=[{"ErrorEquals": ["E"], **members}])})


def caught(**members: Any) -> dict[str, Any]:
    catcher = {"ErrorEquals": ["E"], "Next": "End", **members}
    return machine({"Work": task(Catch=[catcher]), "End": {"Type": "Succeed"}})


REFUSALS: list[tuple[dict[str, Any], str]] = [
    ({"StartAt": "A", "States": {"A": END}}, "field 'QueryLanguage' supports only 'JSONata'"),
    (machine({"A": {**END, "QueryLanguage": "JSONPath"}}), "State 'A': field 'QueryLanguage' supports only 'JSONata'"),
    (machine({"A": END}, Version="2.0"), "field 'Version'"),
    (machine({"A": END}, Extra=1), "State machine: field 'Extra' is not known here"),
    (machine({"A": END}, TimeoutSeconds=0), "'TimeoutSeconds' must be from 1"),
    (machine({"A": END}) | {"StartAt": "B"}, "StartAt leads to 'B', which does not exist"),
    (machine({"A": {"Type": "Pass", "Next": "B"}}), "State 'A' leads to 'B', which does not exist"),
    (machine({"A": END, "B": END}), "State 'B' is not reachable"),
    (machine({"A": {"Type": "Pass", "Next": "A"}}), "No state ends the execution"),
    (machine({"A": {"Type": "Pass"}}), "State 'A': needs either 'Next' or 'End'"),
    (machine({"A": {**END, "Next": "A"}}), "State 'A': needs either 'Next' or 'End'"),
    (machine({"A" * 81: END}), "1 to 80 characters, not 81"),
    (machine({"A": inline({"A": END})}), "the name is already used at /States/A"),
    (machine({"A": {"Type": "Parallel", "Branches": [], "End": True}}), "Type 'Parallel'"),
    (with_state(Comment=5), "State 'Work': field 'Comment' must be a string"),
    (with_state(TimeoutSeconds=5), "State 'Work': field 'TimeoutSeconds' is not known here"),
    (with_state(InputPath="$.a"), "State 'Work': field 'InputPath' belongs to JSONPath"),
    (with_state(Assign={"states": 1}), "'states' is not a legal variable name"),
    (with_state(Assign={"a-b": 1}), "'a-b' is not a legal variable name"),
    (with_state(Output="{% 1 + %}"), "INVALID_JSONATA_EXPRESSION: State 'Work': expression '1 +'"),
    (with_state(Output="{% 1 "), "opens or closes {% … %} only on one side"),
    (with_state(Output={"a": " {% 1 %}"}), "opens or closes {% … %} only on one side"),
    (with_state(Output="{% phone %}"), "Reference to 'phone' at the top level is not supported. at /States/Work"),
    (with_state(Output={"v": "{% $states.input.a & phone %}"}), "at /States/Work/Output/v"),
    (with_state(Output="{% $map($states.input.a, function($x) { b }) %}"), "Reference to 'b' at the top level"),
    (with_state(Output="{% $ %}"), "Reference to '$' at the top level"),
    (with_state(Output="{% $$.a %}"), "Reference to '$$' is not supported"),
    (with_state(Output="{% $eval('1') %}"), "Reference to '$eval' is not supported"),
    (with_state(Output="{% $states.result %}"), "'$states.result' is not available in this field"),
    (with_state(Output="{% $states.errorOutput.Error %}"), "'$states.errorOutput' is not available"),
    (with_state(Output="{% $states.inptu %}"), "'$states.inptu' is not available"),
    (machine({"Work": task(Arguments="{% $states.result %}")}), "'$states.result' is not available"),
    (machine({"Work": task(Resource="arn:aws:lambda:us-east-1:1:function:f")}), "State 'Work': Resource 'arn:aws"),
    (machine({"Work": task(Resource="arn:aws:states:::lambda:invoke.waitForTaskToken")}), "TaskToken' is not one"),
    (machine({"Work": task(Resource="arn:aws:states:::dynamodb:getItem")}), "is not one of lambda:invoke, sns:publish"),
    (machine({"Work": task(Arguments={"Payload": 1})}), "argument 'FunctionName' of lambda:invoke is missing"),
    (machine({"Work": task(Arguments={"FunctionName": "f", "LogType": "Tail"})}), "argument 'LogType' of lambda"),
    (
        machine({"Work": task(Arguments={"FunctionName": "f", "InvocationType": "Event"})}),
        "InvocationType 'Event' is not supported",
    ),
    (machine({"Work": task(TimeoutSeconds=0)}), "State 'Work': field 'TimeoutSeconds' must be of type integer from 1"),
    (machine({"Work": task(Credentials={})}), "field 'Credentials' is not supported by the local interpreter"),
    (retried(ErrorEquals=[]), "State 'Work', retrier 0: 'ErrorEquals' must be a list of error names"),
    (retried(ErrorEquals=["States.Timout"]), "'States.Timout' is not an error name"),
    (retried(ErrorEquals=["States.ALL", "E"]), "'States.ALL' must stand alone"),
    (machine({"Work": task(Retry=[{"ErrorEquals": ["States.ALL"]}, {"ErrorEquals": ["E"]}])}), "in the last entry"),
    (retried(MaxAttempts=-1), "'MaxAttempts' must be from 0"),
    (retried(IntervalSeconds=0), "'IntervalSeconds' must be from 1"),
    (retried(IntervalSeconds=1.5), "'IntervalSeconds' must be of type number"),
    (retried(BackoffRate=0.5), "'BackoffRate' must be at least 1"),
    (retried(IntervalSeconds=10, MaxDelaySeconds=10), "'MaxDelaySeconds' must be from 11"),
    (retried(JitterStrategy="SOME"), "'JitterStrategy' is FULL or NONE"),
    (retried(Next="A"), "State 'Work', retrier 0: field 'Next' is not known here"),
    (caught(ResultPath="$.e"), "State 'Work', catcher 0: field 'ResultPath' belongs to JSONPath"),
    (caught(Next="Nowhere"), "leads to 'Nowhere'"),
    (caught(Assign={"e": "{% $states.result %}"}), "'$states.result' is not available"),
    (machine({"A": {"Type": "Choice", "Choices": []}}), "State 'A': field 'Choices' must not be empty"),
    (
        machine({"A": {"Type": "Choice", "Choices": [{"Variable": "$.a", "Next": "B"}], "Default": "B"}, "B": END}),
        "State 'A', rule 0: field 'Variable' belongs to JSONPath",
    ),
    (
        machine({"A": {"Type": "Choice", "Choices": [{"Condition": "yes", "Next": "B"}], "Default": "B"}, "B": END}),
        "State 'A', rule 0: field 'Condition' must be of type boolean",
    ),
    (machine({"A": {"Type": "Wait", "End": True}}), "needs either 'Seconds' or 'Timestamp'"),
    (machine({"A": {"Type": "Wait", "Seconds": -1, "End": True}}), "field 'Seconds' must be of type integer from 0"),
    (machine({"A": {"Type": "Wait", "Timestamp": "noon", "End": True}}), "'Timestamp' is an RFC 3339 timestamp"),
    (machine({"A": {"Type": "Wait", "Timestamp": "2026-01-01T00:00:00", "End": True}}), "not '2026-01-01T00:00:00'"),
    (machine({"A": {"Type": "Wait", "SecondsPath": "$.s", "End": True}}), "'SecondsPath' belongs to JSONPath"),
    (machine({"A": {"Type": "Succeed", "Assign": {"a": 1}}}), "State 'A': field 'Assign' is not known here"),
    (machine({"A": {"Type": "Fail", "Cause": 5}}), "State 'A': field 'Cause' must be of type string"),
    (with_map(ItemBatcher={"MaxItemsPerBatch": 5}), "State 'Each': field 'ItemBatcher' is not supported"),
    (with_map(Label="x" * 41), "'Label' has 1 to 40 characters"),
    (with_map(Label="a b"), "'Label' has 1 to 40 characters"),
    (with_map(Items=[1]), "State 'Each': has both 'Items' and 'ItemReader'"),
    (with_map(MaxConcurrency=-1), "'MaxConcurrency' must be of type integer from 0"),
    (with_map(ToleratedFailurePercentage=101), "'ToleratedFailurePercentage' must be of type number from 0 to 100"),
    (with_map(TimeoutSeconds=5), "State 'Each': field 'TimeoutSeconds' is not known here"),
    (changed_map("ItemProcessor/ProcessorConfig/ExecutionType", "EXPRESS"), "'ExecutionType' supports only 'STANDARD'"),
    (changed_map("ItemProcessor/ProcessorConfig/Mode", "FAST"), "'Mode' is INLINE or DISTRIBUTED"),
    (changed_map("ItemProcessor/QueryLanguage", "JSONata"), "ItemProcessor: field 'QueryLanguage' is not known here"),
    (changed_map("ItemReader/Resource", "arn:aws:states:::s3:listObjectsV2"), "is not s3:getObject"),
    (changed_map("ItemReader/ReaderConfig", {"InputType": "CSV"}), "field 'InputType' supports only 'JSON'"),
    (changed_map("ItemReader/Arguments", {"Bucket": "b"}), "argument 'Key' of s3:getObject is missing"),
    (changed_map("ResultWriter/WriterConfig", {"OutputType": "JSONL"}), "ResultWriter: field 'WriterConfig'"),
    (changed_map("ResultWriter/Arguments", {"Prefix": "p"}), "argument 'Bucket' of s3:putObject is missing"),
    (machine({"Each": inline({"In": END}, ResultWriter=WRITER)}), "State 'Each': field 'ResultWriter' is not"),
    (machine({"Each": inline({"In": END}, Label="l")}), "State 'Each': field 'Label' is not known here"),
    (
        machine({"Set": {"Type": "Pass", "Assign": {"n": 1}, "Next": "Each"},
                 "Each": inline({"In": {**END, "Assign": {"n": 2}}})}),
        "Variable 'n' is assigned both in an INLINE Map and outside of it",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("definition", "message"), REFUSALS, ids=[message[:60] for _, message in REFUSALS])
def test_refused_by_name(definition: dict[str, Any], message: str) -> None:
    assert message in "\n".join(errors(definition))


def test_text_that_is_no_definition() -> None:
    assert parse("{")[1][0].code == "INVALID_JSON_DESCRIPTION"
    assert parse("[]")[1][0].message == "State machine: expected an object."
    assert parse('{"QueryLanguage":"JSONata","StartAt":"A","States":{"A":5}}')[0] is None
    assert "1 MiB" in parse(" " * 1_048_577)[1][0].message


@pytest.mark.parametrize(
    "output",
    [
        "{% $states.input.items[value > 3] %}",
        "{% $states.input.items.name %}",
        "{% $states.input.items^(>price).name %}",
        "{% $states.input.items{type: $sum(price)} %}",
        "{% $map($states.input.a, function($x, $i) { $x.b & $i }) %}",
        "{% ($total := 5; $total * 2) %}",
        "{% $states.input ~> |items|{'seen': true}| %}",
        "{% $states.context.Execution.Id %}",
        "{% $states.input.items@$i.{'n': $i.name} %}",
        "100 %",
        "a {b} %}c",
    ],
)
def test_legal_expressions_pass(output: str) -> None:
    assert parse(json.dumps(with_state(Output=output)))[1] == []


def test_unknown_variables_are_warnings() -> None:
    states = {
        "Set": {"Type": "Pass", "Assign": {"job": 1}, "Next": "Each"},
        "Each": distributed({"In": {**END, "Output": "{% $job %}"}}),
    }
    definition, problems = parse(json.dumps(machine(states)))
    assert definition is not None
    (problem,) = problems
    assert (problem.severity, problem.code) == ("WARNING", "UNKNOWN_VARIABLE")
    assert problem.location == "/States/Each/ItemProcessor/States/In/Output"
    assert "'$job'" in problem.message


def test_a_map_without_a_label_gets_a_short_one(world: World) -> None:
    world.s3.objects["bucket", "manifest.json"] = b"[1]"
    each = distributed({"In": END})
    del each["Label"]
    arn = world.start(machine({"Process all the chunks of this round, please": each}))
    world.wait(arn)
    label = world.map_run(arn)["mapRunArn"].rpartition("/")[2].partition(":")[0]
    assert re.fullmatch(r"[A-Za-z0-9_-]{9,40}", label)


def test_validation_reports_without_creating(world: World) -> None:
    text = json.dumps(machine({"A": {"Type": "Pass", "ResultPath": "$", "InputPath": "$", "End": True}}))
    answer = world.call("ValidateStateMachineDefinition", definition=text)
    assert answer["result"] == "FAIL"
    assert [diagnostic["location"] for diagnostic in answer["diagnostics"]] == [
        "/States/A/ResultPath",
        "/States/A/InputPath",
    ]
    cut = world.call("ValidateStateMachineDefinition", definition=text, maxResults=1)
    assert (len(cut["diagnostics"]), cut["truncated"]) == (1, True)
    warned = json.dumps(machine({"A": {**END, "Output": "{% $unset %}"}}))
    assert world.call("ValidateStateMachineDefinition", definition=warned)["diagnostics"] == []
    answer = world.call("ValidateStateMachineDefinition", definition=warned, severity="WARNING")
    assert answer["result"] == "OK"
    assert answer["diagnostics"][0]["code"] == "UNKNOWN_VARIABLE"
    assert world.call("ListStateMachines")["stateMachines"] == []
