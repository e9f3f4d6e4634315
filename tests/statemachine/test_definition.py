"""What the production state machine's file promises, and that it agrees with the engine and the functions."""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.template import load_template
from sluice import errors
from tests.statemachine.interpreter.world import World
from tests.statemachine.production import (
    AWS_NAMES,
    DEFINITION,
    ROOT,
    STATES,
    TASKS,
    TEXT,
    all_states,
    function_of,
    rendered,
)

ENGINE = ROOT / "layers" / "engine" / "sluice"
CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, errors.SluiceError) and value is not errors.SluiceError
}
FINISH = ("Finish run", "Finish after error")
COLUMNS = (("Validate config",), ("Plan round",), ("Process chunk",), FINISH)
# What becomes of each error in these four: t terminal, r retried, - its function does not raise it.
FATES = {
    "BadInputError": "tttt",
    "TargetBusyError": "t---",
    "RunKeyReusedError": "ttt-",
    "RunCancelledError": "t---",
    "TransientError": "rrrr",
    "DatabaseUnavailableError": "rrrr",
    "ChunkBusyError": "rrrr",
    "DeadlineNearError": "rrrr",
    # A plan would run as long again; a chunk is split by the next round. The end of a run must be written.
    "StatementTimeoutError": "tttr",
    "TerminalError": "tttt",
    "StatementError": "tttt",
    "StaleGenerationError": "--t-",
    "RowCountError": "--t-",
    "NotConvergingError": "--t-",
    "LedgerError": "tttt",
}
JSONPATH = {"InputPath", "OutputPath", "ResultPath", "Parameters", "ResultSelector", "ItemsPath"}


# A process that died or ran out of its time.
LOST = {"Runtime.ExitError", "Sandbox.Timedout", "Lambda.Unknown", "States.Timeout"}


def entries(member: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, state in STATES.items():
        yield from ((name, entry) for entry in state.get(member, []))


def members(value: Any) -> Iterator[str]:
    """Every member name in the definition."""
    if isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from members(item)
    elif isinstance(value, list):
        for item in value:
            yield from members(item)


def named_in(member: str) -> set[str]:
    return {name for _, entry in entries(member) for name in entry["ErrorEquals"]}


@pytest.mark.parametrize("name", sorted(named_in("Retry") | named_in("Catch")))
def test_error_name_exists_in_the_engine_or_in_aws(name: str) -> None:
    assert (name in CLASSES) != (name in AWS_NAMES)


def test_every_aws_name_is_used() -> None:
    assert set(AWS_NAMES) == (named_in("Retry") | named_in("Catch")) - CLASSES.keys()


def raised_names() -> set[str]:
    """Names that the engine makes an exception of or raises."""
    found = set()
    for path in ENGINE.rglob("*.py"):
        if path.name == "errors.py" or "cli" in path.relative_to(ENGINE).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found.add(node.func.id)
            elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name):
                found.add(node.exc.id)
    return found


def test_every_error_is_raised_somewhere_and_has_its_fate_in_the_table() -> None:
    assert raised_names() >= CLASSES.keys()
    assert FATES.keys() == CLASSES.keys()


@pytest.mark.parametrize("name", FATES)
def test_every_error_is_treated_as_the_table_says(name: str) -> None:
    treated = {}
    for states, fate in zip(COLUMNS, FATES[name], strict=True):
        for state in states:
            by_name = [entry["MaxAttempts"] for entry in STATES[state]["Retry"] if name in entry["ErrorEquals"]]
            by_any = [entry["MaxAttempts"] for entry in STATES[state]["Retry"] if "States.ALL" in entry["ErrorEquals"]]
            if fate == "-":
                assert not by_name, f"{state} names {name}, which it never meets"
                continue
            attempts = (by_name + by_any)[0]
            treated[state] = "r" if attempts else "t"
            assert treated[state] == fate, state


@pytest.mark.parametrize("name", TASKS)
def test_terminal_errors_come_first_and_the_wildcard_alone_and_last(name: str) -> None:
    retry = TASKS[name]["Retry"]
    seen = [error for entry in retry for error in entry["ErrorEquals"]]
    assert len(seen) == len(set(seen))
    assert [entry["MaxAttempts"] == 0 for entry in retry] == [True] + [False] * (len(retry) - 1)
    for entry in retry[:-1]:
        assert "States.ALL" not in entry["ErrorEquals"]
    if "States.ALL" in retry[-1]["ErrorEquals"]:
        assert retry[-1]["ErrorEquals"] == ["States.ALL"]
    for entry in retry[1:]:
        assert entry["JitterStrategy"] == ("NONE" if "Runtime.ExitError" in entry["ErrorEquals"] else "FULL")
        assert entry["BackoffRate"] > 1
        last = entry["IntervalSeconds"] * entry["BackoffRate"] ** (entry["MaxAttempts"] - 1)
        assert min(last, entry.get("MaxDelaySeconds", last)) <= 120


@pytest.mark.parametrize(
    ("error", "states", "interval", "attempts", "backoff", "ceiling"),
    [
        ("Lambda.TooManyRequestsException", set(TASKS) - {"Finish after error"}, 2, 8, 2, 60),
        ("Lambda.ServiceException", set(TASKS) - set(FINISH), 2, 6, 2, 30),
        # A row that the application holds may be held for minutes.
        ("ChunkBusyError", {"Plan round"}, 5, 20, 1.5, 120),
        ("ChunkBusyError", {"Process chunk"}, 5, 20, 1.5, 60),
        # The next round comes back to a chunk; nothing comes back to these.
        ("DatabaseUnavailableError", {"Process chunk"}, 5, 5, 2, 60),
        ("DatabaseUnavailableError", {"Validate config"}, 5, 6, 2, 120),
        ("DatabaseUnavailableError", {"Plan round"}, 5, 20, 1.5, 120),
        ("States.ALL", set(FINISH), 5, 8, 2, 120),
        ("Runtime.ExitError", set(TASKS) - set(FINISH), 35, 2, 2, None),
    ],
)
def test_retries_are_these(
    error: str, states: set[str], interval: int, attempts: int, backoff: float, ceiling: int | None
) -> None:
    for state in states:
        (entry,) = [entry for entry in STATES[state]["Retry"] if error in entry["ErrorEquals"]]
        found = [entry.get(name) for name in ("IntervalSeconds", "MaxAttempts", "BackoffRate", "MaxDelaySeconds")]
        assert found == [interval, attempts, backoff, ceiling], state


def test_crash_and_timeout_are_retried_only_when_the_lost_session_is_gone() -> None:
    """The server notices a vanished client within 5 s and ends an idle transaction after 30 s: jitter would cut it."""
    for name in ("Validate config", "Plan round", "Process chunk"):
        lost = [entry for entry in STATES[name]["Retry"] if "Runtime.ExitError" in entry["ErrorEquals"]]
        assert {"Runtime.ExitError", "Sandbox.Timedout", "Lambda.Unknown", "States.Timeout"} == set(
            lost[0]["ErrorEquals"]
        )
        assert (lost[0]["IntervalSeconds"], lost[0]["JitterStrategy"]) == (35, "NONE")


def test_language_is_jsonata_alone() -> None:
    assert DEFINITION["QueryLanguage"] == "JSONata"
    used = list(members(DEFINITION))
    assert used.count("QueryLanguage") == 1
    assert not JSONPATH & set(used)
    assert not [name for name in used if name.endswith((".$", "Path"))]
    assert "ItemBatcher" not in used


def test_states_are_named_commented_and_bounded() -> None:
    names = [name for name, _ in all_states()]
    assert len(names) == len(set(names))
    for name, state in STATES.items():
        assert state.get("Comment"), f"{name} has no Comment"
        assert len(name) <= 80
        assert state["Type"] != "Choice" or state["Default"] in names
    assert len(TEXT.splitlines()) <= 250
    assert len(TEXT.encode()) < 1024 * 1024


def test_map_tolerates_every_child_and_writes_its_results() -> None:
    (run,) = [state for state in STATES.values() if state["Type"] == "Map"]
    assert re.fullmatch(r"[A-Za-z][\w-]{0,39}", run["Label"])
    assert run["ToleratedFailurePercentage"] == 100
    assert run["ItemProcessor"]["ProcessorConfig"] == {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}
    assert run["ResultWriter"]["Arguments"].keys() == {"Bucket", "Prefix"}
    assert "Retry" not in run


def test_states_of_a_child_read_nothing_of_the_parent() -> None:
    (run,) = [state for state in STATES.values() if state["Type"] == "Map"]
    variables = set(re.findall(r"\$(\w+)", json.dumps(run["ItemProcessor"])))
    assert variables == {"states"}


def test_every_task_outlives_its_function() -> None:
    template = load_template(ROOT / "template.yaml", region="us-east-1")
    for name, state in TASKS.items():
        function = template.resources[f"{function_of(state)}Function"]["Properties"]
        assert function["Timeout"] < state["TimeoutSeconds"] <= function["Timeout"] + 60, name


def tree(function: str) -> ast.Module:
    folder = re.sub(r"(?<!^)(?=[A-Z])", "_", function).lower()
    return ast.parse((ROOT / "functions" / folder / "app.py").read_text())


def event_fields(function: str) -> dict[str, bool]:
    """Fields of a function's event: name → whether it must be given."""
    (event,) = [node for node in tree(function).body if isinstance(node, ast.ClassDef) and node.name == "Event"]
    fields = [node for node in event.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return {node.target.id: node.value is None for node in fields if isinstance(node.target, ast.Name)}


def answered(function: str) -> set[str]:
    """Members of a function's answer."""
    (answer,) = [node.value for node in ast.walk(tree(function)) if isinstance(node, ast.Return)]
    assert isinstance(answer, ast.Dict)
    return {key.value for key in answer.keys if isinstance(key, ast.Constant)}


@pytest.mark.parametrize("name", TASKS)
def test_task_gives_its_function_the_event_that_it_takes(name: str) -> None:
    fields = event_fields(function_of(TASKS[name]))
    payload = TASKS[name]["Arguments"]["Payload"].keys()
    assert payload <= fields.keys()
    assert payload >= {field for field, needed in fields.items() if needed}


def test_expressions_read_what_the_functions_answer() -> None:
    """Where a Choice or a Wait reads a member that is missing, nothing catches the error."""
    assert set(re.findall(r"\$round\.(\w+)", TEXT)) <= answered("GetChunks")
    assert set(re.findall(r"\$finished\.(\w+)", TEXT)) <= answered("FinishRun")
    assert set(re.findall(r"Payload\.(\w+)", TEXT)) <= answered("ValidateConfig")


def test_actions_and_states_are_those_of_the_engine() -> None:
    run_source = (ENGINE / "run.py").read_text()
    actions = set(re.findall(r'Round\(\s*"(\w+)"', run_source))
    assert actions == {"work", "wait", "stop", "finish"}
    assert set(re.findall(r"\$round\.action = '(\w+)'", TEXT)) == actions - {"finish"}
    kinds = set(re.findall(r'kind: Literal\["(\w+)"\]', (ENGINE / "job.py").read_text()))
    (listed,) = re.findall(r"\$states\.input\.kind in \[([^\]]*)\]", TEXT)
    assert set(re.findall(r"'(\w+)'", listed)) == kinds


def test_interpreter_finds_nothing_to_say() -> None:
    world = World()
    answer = world.call("ValidateStateMachineDefinition", definition=rendered(), severity="WARNING")
    world.service.close()
    assert (answer["result"], answer["diagnostics"]) == ("OK", [])


def test_cfn_lint_finds_nothing_in_the_definition(tmp_path: Path) -> None:
    """It does not look into files, so the definition is put into a template, beside one with a mistake in it."""
    arn = "arn:aws:lambda:us-east-1:123456789012:function:sluice"
    functions = {f"{function_of(state)}FunctionArn": arn for state in TASKS.values()}
    definition = json.loads(rendered(**functions))
    # cfn-lint 1.58 takes a number alone here, Step Functions takes an expression too.
    definition["States"]["Process chunks"]["MaxConcurrency"] = 5
    broken = copy.deepcopy(definition)
    broken["States"]["Plan round"]["OutputPath"] = "$.Payload"
    resources = {
        name: {
            "Type": "AWS::StepFunctions::StateMachine",
            "Properties": {"RoleArn": "arn:aws:iam::123456789012:role/run-job", "Definition": given},
        }
        for name, given in {"Sound": definition, "Broken": broken}.items()
    }
    path = tmp_path / "template.json"
    path.write_text(json.dumps({"Resources": resources}))
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--format", "json", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [(finding["Location"]["Path"][1], finding["Rule"]["Id"]) for finding in json.loads(done.stdout)]
    assert found == [("Broken", "E3601")], done.stdout


def test_substitutions_are_used_as_they_are_declared() -> None:
    declared = load_template(ROOT / "template.yaml", region="us-east-1").resources["RunJobStateMachine"]
    names = declared["Properties"]["DefinitionSubstitutions"].keys()
    assert set(re.findall(r"\$\{(\w+)\}", TEXT)) == set(names)
    for name, state in STATES.items():
        assert "arn:aws" not in json.dumps(state), f"{name} has an ARN of one partition in it"
