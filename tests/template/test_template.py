"""What template.yaml deploys: names, rights, logs, the schedule; and that sam's own configuration fits it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infra.local.intrinsics import Intrinsics
from infra.local.template import ACCOUNT, Template, load_template

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "layers" / "engine"
FUNCTIONS = {path.parent.name: path for path in sorted((ROOT / "functions").glob("*/app.py"))}
# The region with the longest name.
REGION = "ap-southeast-1"
# Properties that name what is deployed, with the longest name that AWS takes.
NAMES = {
    "BucketName": 63, "FunctionName": 64, "LayerName": 140, "LogGroupName": 512, "QueueName": 80, "RoleName": 64,
    "StateMachineName": 80, "TopicName": 256,
}  # fmt: skip
# What a call in the engine needs: an action, and a resource it is made on.
NEEDS = {
    "s3.put_object": ("s3:PutObject", "arn:aws:s3:::{bucket}/runs/7/update/round-1.json"),
    "events.put_events": ("events:PutEvents", f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/default"),
    "parameters.get_secret": (
        "secretsmanager:GetSecretValue",
        f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:sluice/target-AbCdEf",
    ),
}
# Log delivery has no resources that a policy could name.
ON_EVERYTHING = {
    f"logs:{action}"
    for action in (
        "CreateLogDelivery", "GetLogDelivery", "UpdateLogDelivery", "DeleteLogDelivery", "ListLogDeliveries",
        "PutResourcePolicy", "DescribeResourcePolicies", "DescribeLogGroups",
    )
}  # fmt: skip


@cache
def template() -> Template:
    return load_template(ROOT / "template.yaml", region=REGION)


def resources(**parameters: str) -> dict[str, dict[str, Any]]:
    """The resources' properties as they are deployed with these parameters; Ref gives logical ids."""
    pseudo = {"AWS::AccountId": ACCOUNT, "AWS::Partition": "aws", "AWS::Region": REGION, "AWS::StackName": "sluice"}
    body = template().resources

    def attribute(name: str, path: str) -> str:
        if body[name]["Type"] == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{intrinsics.evaluate(body[name]['Properties'])['BucketName']}"
        return f"{name}.{path}"

    given = template().parameters(parameters, pseudo)
    intrinsics = Intrinsics(given, {}, {}, reference=lambda name: name, attribute=attribute)
    # The transform puts the parameters into layers' names, here it knows but the defaults.
    layers = {
        name: resource
        for name, resource in template().source["Resources"].items()
        if resource["Type"] == "AWS::Serverless::LayerVersion"
    }
    rest = {name: resource for name, resource in body.items() if resource["Type"] != "AWS::Lambda::LayerVersion"}
    return {
        name: {"Type": resource["Type"], **intrinsics.evaluate(resource.get("Properties") or {})}
        for name, resource in (rest | layers).items()
    }


def of_type(kind: str, **parameters: str) -> dict[str, dict[str, Any]]:
    return {name: found for name, found in resources(**parameters).items() if found["Type"] == kind}


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(role: Mapping[str, Any]) -> Iterator[tuple[list[str], list[str]]]:
    """Actions and resources of a role's own statements."""
    for policy in role.get("Policies", []):
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            yield as_list(statement["Action"]), as_list(statement["Resource"])


def logical_id(function: str) -> str:
    return "".join(word.capitalize() for word in function.split("_")) + "Function"


def test_cfn_lint_finds_nothing() -> None:
    command = [str(Path(sys.executable).with_name("cfn-lint")), "--format", "json", str(ROOT / "template.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == []


def test_every_function_s_folder_is_deployed_and_back() -> None:
    deployed = of_type("AWS::Lambda::Function")
    assert deployed.keys() == {logical_id(name) for name in FUNCTIONS}
    for name in FUNCTIONS:
        function = deployed[logical_id(name)]
        assert function["Code"]["S3Key"] == f"functions/{name}"
        assert function["Handler"] == "app.lambda_handler"
        assert function["Runtime"] == "python3.13"
        assert function["Architectures"] == ["arm64"]
        assert function["TracingConfig"] == {"Mode": "Active"}


def physical_names(**parameters: str) -> list[tuple[str, str]]:
    """Property and value of every name that the template gives."""
    found = resources(**parameters).values()
    return [(key, value) for resource in found for key, value in resource.items() if key in NAMES]


def test_two_stacks_in_one_account_do_not_collide() -> None:
    one, two = ({name for _, name in physical_names(NamePrefix=prefix)} for prefix in ("one", "two"))
    assert len(one) == len(physical_names())
    assert not one & two
    assert all("one" in name for name in one)


def test_names_fit_with_the_longest_prefix() -> None:
    pattern = template().body["Parameters"]["NamePrefix"]["AllowedPattern"]
    prefix = "a" * 31
    assert re.fullmatch(pattern, prefix)
    assert not re.fullmatch(pattern, prefix + "a")
    for key, name in physical_names(NamePrefix=prefix):
        assert len(name) <= NAMES[key], (key, name)


def test_every_function_has_a_log_group_of_its_own_with_retention() -> None:
    groups = of_type("AWS::Logs::LogGroup")
    assert all(group["RetentionInDays"] == "30" for group in groups.values())
    used = []
    for function in of_type("AWS::Lambda::Function").values():
        config = function["LoggingConfig"]
        assert config["LogFormat"] == "JSON"
        assert groups[config["LogGroup"]]["LogGroupName"] == f"/aws/lambda/{function['FunctionName']}"
        used.append(config["LogGroup"])
    assert len(used) == len(set(used)) == len(groups) - 1


def test_state_machine_logs_errors_without_data() -> None:
    (machine,) = of_type("AWS::StepFunctions::StateMachine").values()
    logging = machine["LoggingConfiguration"]
    assert (logging["Level"], logging["IncludeExecutionData"]) == ("ERROR", False)
    assert machine["TracingConfiguration"] == {"Enabled": True}
    # Other names would each take a part of the 5,120 characters that a region's resource policy may have.
    group = of_type("AWS::Logs::LogGroup")["RunJobLogGroup"]
    assert group["LogGroupName"] == f"/aws/vendedlogs/states/{machine['StateMachineName']}"
    granted = {action for actions, _ in statements(resources()["RunJobStateMachineRole"]) for action in actions}
    assert granted >= ON_EVERYTHING


def test_no_role_may_do_anything_to_everything() -> None:
    for name, role in of_type("AWS::IAM::Role").items():
        managed = {arn.rpartition("/")[2] for arn in role.get("ManagedPolicyArns", [])}
        assert managed <= {"AWSLambdaBasicExecutionRole", "AWSXrayWriteOnlyAccess"}, name
        for actions, on in statements(role):
            assert not [action for action in actions if "*" in action], name
            assert "*" not in on or set(actions) <= ON_EVERYTHING, name


def calls_of(path: Path) -> set[str]:
    """Calls of AWS in a module, as `s3.put_object`; a client of another service as `boto3.client.<service>`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        owner = node.func.value
        name = owner.func if isinstance(owner, ast.Call) else owner
        if isinstance(name, ast.Name) and name.id in ("s3", "events", "parameters"):
            found.add(f"{name.id}.{node.func.attr}")
        elif isinstance(name, ast.Name) and name.id == "boto3" and node.func.attr in ("client", "resource"):
            service = node.args[0]
            assert isinstance(service, ast.Constant)
            found.add(f"boto3.client.{service.value}")
    return found


def imported(path: Path) -> Iterator[Path]:
    """Files of the engine that a file imports, directly."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sluice"):
            continue
        for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
            place = ENGINE.joinpath(*name.split("."))
            yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())


def reachable(path: Path) -> set[Path]:
    """The file and all of the engine behind it."""
    found, new = set(), {path}
    while new:
        found |= new
        new = {file for known in new for file in imported(known)} - found
    return found


def calls_behind(function: str) -> set[str]:
    found = {call for file in reachable(FUNCTIONS[function]) for call in calls_of(file)}
    assert found <= NEEDS.keys() | {"boto3.client.s3", "boto3.client.events"}, "a call that no policy is known for"
    return found & NEEDS.keys()


@pytest.mark.parametrize("function", FUNCTIONS)
def test_function_may_do_what_its_code_does_and_nothing_else(function: str) -> None:
    everything = resources()
    role = everything[f"{logical_id(function)}Role"]
    bucket = everything["Bucket"]["BucketName"]
    needed = [NEEDS[call] for call in calls_behind(function)]
    assert needed
    for action, on in needed:
        allowed = [patterns for actions, patterns in statements(role) if action in actions]
        target = on.format(bucket=bucket)
        assert any(fnmatchcase(target, pattern) for patterns in allowed for pattern in patterns), (action, target)
    assert {action for actions, _ in statements(role) for action in actions} == {action for action, _ in needed}


def test_function_may_not_write_outside_the_runs_or_read_other_secrets() -> None:
    for name in FUNCTIONS:
        for actions, patterns in statements(resources()[f"{logical_id(name)}Role"]):
            for pattern in patterns:
                assert not fnmatchcase(f"arn:aws:s3:::{resources()['Bucket']['BucketName']}/other", pattern), actions
                assert not fnmatchcase(f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:payroll-AbCdEf", pattern), (
                    actions
                )


def test_state_machine_may_run_its_map_and_nothing_of_others() -> None:
    everything = resources()
    granted = list(statements(everything["RunJobStateMachineRole"]))
    states = f"arn:aws:states:{REGION}:{ACCOUNT}"
    runs = f"arn:aws:s3:::{everything['Bucket']['BucketName']}/runs/*"
    expected = {
        "states:StartExecution": {f"{states}:stateMachine:sluice-run-job"},
        "states:DescribeExecution": {f"{states}:execution:sluice-run-job/*"},
        "states:StopExecution": {f"{states}:execution:sluice-run-job/*"},
        "s3:GetObject": {runs},
        "s3:PutObject": {runs},
        "s3:ListMultipartUploadParts": {runs},
        "s3:AbortMultipartUpload": {runs},
    }
    for action, on in expected.items():
        assert {pattern for actions, patterns in granted if action in actions for pattern in patterns} == on
    invoked = {pattern for actions, patterns in granted if "lambda:InvokeFunction" in actions for pattern in patterns}
    assert {pattern.rpartition(":")[2] for pattern in invoked} == {f"{logical_id(name)}*" for name in FUNCTIONS}


def test_schedule_is_off_by_default_and_names_the_run_by_its_time() -> None:
    (schedule,) = of_type("AWS::Scheduler::Schedule").values()
    assert schedule["State"] == "DISABLED"
    (enabled,) = of_type("AWS::Scheduler::Schedule", ScheduleState="ENABLED").values()
    assert enabled["State"] == "ENABLED"
    # A name of its own would be the same in every stack.
    assert "Name" not in schedule
    assert schedule["ScheduleExpressionTimezone"] == "UTC"
    assert schedule["FlexibleTimeWindow"] == {"Mode": "OFF"}
    target = schedule["Target"]
    assert target["Arn"] == "RunJobStateMachine"
    assert target["RetryPolicy"].keys() == {"MaximumRetryAttempts", "MaximumEventAgeInSeconds"}
    assert json.loads(target["Input"]) == {
        "job": "conflict_report/conflict_report",
        "run_key": "<aws.scheduler.scheduled-time>",
    }
    pack, _, job = json.loads(target["Input"])["job"].partition("/")
    assert (ROOT / "sql" / "packs" / pack / f"{job}.job.yaml").is_file()


def test_bucket_is_private_encrypted_and_kept() -> None:
    body = template().resources["Bucket"]
    assert (body["DeletionPolicy"], body["UpdateReplacePolicy"]) == ("Retain", "Retain")
    bucket = resources()["Bucket"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"


def test_parameters_and_outputs_say_what_they_are() -> None:
    for section in ("Parameters", "Outputs"):
        for name, entry in template().body[section].items():
            assert entry.get("Description", "").endswith("."), name
    assert all("Default" in parameter for parameter in template().body["Parameters"].values())


def test_samconfig_fits_the_template() -> None:
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    assert config.pop("version") == 0.1
    assert config.keys() >= {"default", "prod"}
    stacks, prefixes = [], []
    for commands in config.values():
        deploy = commands["deploy"]["parameters"]
        given = dict(pair.split("=", 1) for pair in deploy["parameter_overrides"].split())
        assert resources(**given)
        assert re.fullmatch(template().body["Parameters"]["NamePrefix"]["AllowedPattern"], given["NamePrefix"])
        # Roles are made, but none with a name of its own.
        assert deploy["capabilities"] == "CAPABILITY_IAM"
        stacks.append(commands["global"]["parameters"]["stack_name"])
        prefixes.append(given["NamePrefix"])
    assert len(set(stacks)) == len(set(prefixes)) == len(config)
    assert config["prod"]["deploy"]["parameters"]["confirm_changeset"] is True


@pytest.mark.parametrize("function", FUNCTIONS)
def test_handler_is_short_and_knows_neither_driver_nor_sql(function: str) -> None:
    text = FUNCTIONS[function].read_text()
    assert 20 <= len(text.splitlines()) <= 45
    modules = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            modules.add(node.module.split(".")[0])
    assert modules <= {"__future__", "collections", "dataclasses", "typing", "sluice"}
    assert not re.search(r"\b(SELECT|INSERT|UPDATE|DELETE|FROM|WHERE)\b", text)
    assert "environ" not in text
