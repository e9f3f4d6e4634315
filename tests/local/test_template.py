"""Reading and deploying templates: intrinsic functions, refusals by name, what is ignored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.local.deploy import substitute
from infra.local.intrinsics import NO_VALUE, Intrinsics, TemplateError
from infra.local.stack import LocalStack
from infra.local.template import Template, load_template

HEAD = "AWSTemplateFormatVersion: 2010-09-09\nTransform: AWS::Serverless-2016-10-31\n"


@pytest.fixture
def intrinsics() -> Intrinsics:
    """Values of a small template: two parameters, two conditions, one resource `Thing`."""
    attributes = {("Thing", "Arn"): "arn:thing", ("Thing", "Endpoint.Port"): 5432}
    return Intrinsics(
        {"Name": "sluice", "Subnets": ["a", "b"], "AWS::Region": "eu-west-1"},
        {"Yes": {"Fn::Equals": [{"Ref": "Name"}, "sluice"]}, "No": {"Fn::Not": [{"Condition": "Yes"}]}},
        {"Sizes": {"eu-west-1": {"memory": 512}}},
        reference=lambda name: f"ref of {name}",
        attribute=lambda name, path: attributes[name, path],
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Ref": "Name"}, "sluice"),
        ({"Ref": "Thing"}, "ref of Thing"),
        ({"Ref": "AWS::NoValue"}, NO_VALUE),
        ({"Fn::GetAtt": ["Thing", "Arn"]}, "arn:thing"),
        ({"Fn::GetAtt": "Thing.Endpoint.Port"}, 5432),
        (
            {"Fn::Sub": "${Name} in ${AWS::Region}: ${Thing.Arn} ${!Literal}"},
            "sluice in eu-west-1: arn:thing ${Literal}",
        ),
        ({"Fn::Sub": ["${own}/${Thing}", {"own": {"Ref": "Name"}}]}, "sluice/ref of Thing"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Name"}, 1]]}, "a-sluice-1"),
        ({"Fn::Join": [",", {"Ref": "Subnets"}]}, "a,b"),
        ({"Fn::Split": [":", {"Fn::GetAtt": ["Thing", "Arn"]}]}, ["arn", "thing"]),
        ({"Fn::Select": ["1", {"Ref": "Subnets"}]}, "b"),
        ({"Fn::FindInMap": ["Sizes", {"Ref": "AWS::Region"}, "memory"]}, 512),
        ({"Fn::If": ["Yes", 1, {"Ref": "NotLookedAt"}]}, 1),
        ({"Fn::If": ["No", 1, {"Ref": "Name"}]}, "sluice"),
        ({"kept": 1, "gone": {"Fn::If": ["No", 1, {"Ref": "AWS::NoValue"}]}}, {"kept": 1}),
        ([1, {"Ref": "AWS::NoValue"}, 2], [1, 2]),
        ({"Fn::And": [{"Condition": "Yes"}, {"Condition": "No"}]}, False),
        ({"Fn::Or": [{"Condition": "Yes"}, {"Condition": "No"}]}, True),
        ({"Condition": {"StringEquals": {"a": {"Ref": "Name"}}}}, {"Condition": {"StringEquals": {"a": "sluice"}}}),
    ],
)
def test_intrinsic_function(intrinsics: Intrinsics, value: Any, expected: Any) -> None:
    assert intrinsics.evaluate(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"Fn::ImportValue": "other-stack"}, "does not evaluate Fn::ImportValue"),
        ({"Ref": "AWS::Unheard"}, "pseudo parameter AWS::Unheard"),
        ({"Fn::If": ["Maybe", 1, 2]}, "no condition Maybe"),
        ({"Fn::FindInMap": ["Sizes", "mars", "memory"]}, "no mapping Sizes.mars.memory"),
    ],
)
def test_intrinsic_function_refused(intrinsics: Intrinsics, value: Any, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        intrinsics.evaluate(value)


def load(folder: Path, text: str) -> Template:
    path = folder / "template.yaml"
    path.write_text(HEAD + text)
    return load_template(path, region="us-east-1")


def test_parameters_have_defaults_types_and_allowed_values(tmp_path: Path) -> None:
    template = load(
        tmp_path,
        """
Parameters:
  Name: {Type: String, Default: sluice}
  Count: {Type: Number, Default: 3}
  Subnets: {Type: "List<AWS::EC2::Subnet::Id>", Default: ""}
  Stage: {Type: String, AllowedValues: [local, production]}
Resources:
  Topic: {Type: AWS::SNS::Topic}
""",
    )
    given = template.parameters({"Stage": "local", "Subnets": "a, b"}, {"AWS::Region": "x"})
    assert given == {"Name": "sluice", "Count": "3", "Subnets": ["a", "b"], "Stage": "local", "AWS::Region": "x"}
    assert template.parameters({"Stage": "local"}, {})["Subnets"] == []
    with pytest.raises(TemplateError, match="Stage has no default"):
        template.parameters({}, {})
    with pytest.raises(TemplateError, match="Stage must be one of local, production, not test"):
        template.parameters({"Stage": "test"}, {})
    with pytest.raises(TemplateError, match="no parameter Colour"):
        template.parameters({"Stage": "local", "Colour": "red"}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Resources: [", "while parsing"),
        ("Description: nothing", "has no Resources"),
        ("Resources:\n  F: {Type: AWS::Serverless::Function, Properties: {CodeUri: f/}}", "F"),
    ],
)
def test_template_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        load(tmp_path, text)


def test_transform_is_kept_by_content(tmp_path: Path) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(HEAD + "Resources:\n  Topic: {Type: AWS::SNS::Topic}\n")
    first = load_template(path, region="us-east-1", cache=tmp_path / "cache")
    assert load_template(path, region="us-east-1", cache=tmp_path / "cache").body == first.body
    path.write_text(HEAD + "Resources:\n  Other: {Type: AWS::SNS::Topic}\n")
    assert list(load_template(path, region="us-east-1", cache=tmp_path / "cache").resources) == ["Other"]


def test_substitution_happens_in_the_text() -> None:
    text = '{"a": "arn:${Partition}:x", "n": ${Number}, "s": "{% $states.input %}"}'
    result = json.loads(substitute("Machine", text, {"Partition": "aws", "Number": 5}))
    assert result == {"a": "arn:aws:x", "n": 5, "s": "{% $states.input %}"}
    with pytest.raises(TemplateError, match=r"Machine: \$\{Number\} is not among DefinitionSubstitutions"):
        substitute("Machine", text, {"Partition": "aws"})


def test_deployed_resources_are_there(stack: LocalStack) -> None:
    found = stack.deployment
    bucket = found.references["Bucket"]
    assert stack.bucket == bucket
    assert [entry["Name"] for entry in stack.client("s3").list_buckets()["Buckets"]] == [bucket]
    assert found.references["Topic"] in [topic["TopicArn"] for topic in stack.client("sns").list_topics()["Topics"]]
    assert found.outputs == {"StateMachineArn": stack.state_machine_arn, "BucketUrl": f"s3://{bucket}/sluice"}
    assert set(found.of_type("AWS::Lambda::Function")) == {
        "EchoEventFunction",
        "OneAtATimeFunction",
        "BrokenImportFunction",
    }
    schedule = stack.client("scheduler").get_schedule(Name="LittleStateMachineNightly")
    assert schedule["State"] == "DISABLED"
    assert schedule["Target"]["Arn"] == stack.state_machine_arn
    assert schedule["ScheduleExpressionTimezone"] == "Europe/Berlin"


def test_function_s_configuration_comes_from_the_template(stack: LocalStack) -> None:
    function = stack.pool.function("sluice-OneAtATimeFunction")
    assert (function.timeout, function.memory, function.reserved_concurrency) == (10, 256, 1)
    assert function.log_group == "sluice-OneAtATimeLogGroup"
    assert function.environment["SLUICE_STAGE"] == "local in us-east-1"
    assert function.environment["SLUICE_TOPIC"] == stack.deployment.references["Topic"]
    assert function.opt
    assert sorted(path.name for path in function.opt.iterdir()) == ["little", "packs"]


def test_connection_secret_has_the_form_of_rds(stack: LocalStack) -> None:
    import psycopg2

    answer = stack.client("secretsmanager").get_secret_value(SecretId="sluice/target")
    secret = json.loads(answer["SecretString"])
    assert secret["engine"] == "postgres"
    connection = psycopg2.connect(
        host=secret["host"], port=secret["port"], user=secret["username"], password=secret["password"],
        dbname=secret["dbname"],
    )  # fmt: skip
    connection.close()


@pytest.fixture
def refusal(tmp_path: Path, application: Path) -> Callable[[str], str]:
    """Deploy a template and return why that was refused."""
    from infra.local.deploy import Deployer, Services
    from infra.local.lambda_pool import LambdaPool

    def deploy(text: str) -> str:
        template = load(tmp_path, text)
        pool = LambdaPool(tmp_path / "logs")
        services = Services(
            client=lambda service: pytest.fail(f"a client for {service} was asked for"),
            pool=pool,
            states=lambda target, body: (400, {"__type": "InvalidDefinition", "message": "no such state"}),
            endpoint_url="http://127.0.0.1:1",
            region="us-east-1",
            folder=tmp_path,
        )
        try:
            with pytest.raises(TemplateError) as refused:
                Deployer(template, services).deploy()
            return str(refused.value)
        finally:
            pool.close()

    return deploy


def test_unknown_type_is_refused_by_name_before_anything_is_made(refusal: Callable[[str], str]) -> None:
    message = refusal("Resources:\n  Topic: {Type: AWS::SNS::Topic}\n  Table: {Type: AWS::DynamoDB::Table}\n")
    assert message == "Table: the local stack does not know resources of type AWS::DynamoDB::Table"


def test_circular_reference_is_refused(refusal: Callable[[str], str]) -> None:
    message = refusal(
        "Resources:\n"
        "  A: {Type: AWS::SNS::Topic, Properties: {TopicName: !Ref B}}\n"
        "  B: {Type: AWS::SNS::Topic, Properties: {TopicName: !Ref A}}\n"
    )
    assert message == "circular reference: A → B → A"


def test_reference_to_nothing_is_refused(refusal: Callable[[str], str]) -> None:
    message = refusal("Resources:\n  A: {Type: AWS::SNS::Topic, Properties: {TopicName: !Ref Nothing}}\n")
    assert message == "the template has no resource or parameter Nothing"


def test_use_of_a_resource_whose_condition_is_false_is_refused(refusal: Callable[[str], str]) -> None:
    message = refusal(
        "Conditions: {Never: !Equals [a, b]}\n"
        "Resources:\n"
        "  A: {Type: AWS::SNS::Topic, Properties: {TopicName: !Ref B}}\n"
        "  B: {Type: AWS::SNS::Topic, Condition: Never}\n"
    )
    assert message == "B is used, but its condition Never does not hold"


def test_unknown_attribute_is_refused(refusal: Callable[[str], str]) -> None:
    message = refusal(
        "Resources:\n"
        "  A: {Type: AWS::SNS::Topic, Properties: {TopicName: !GetAtt Role.Colour}}\n"
        "  Role: {Type: AWS::IAM::Role}\n"
    )
    assert message == "the local stack does not know the attribute Role.Colour"


def test_missing_code_and_layer_folders_are_refused(refusal: Callable[[str], str]) -> None:
    common = "Type: AWS::Serverless::Function, Properties: {Runtime: python3.13, Handler: app.handler"
    assert refusal(f"Resources:\n  F: {{{common}, CodeUri: nowhere/}}}}\n") == "F: there is no nowhere/app.py"
    layer = "Resources:\n  L: {Type: AWS::Serverless::LayerVersion, Properties: {ContentUri: nowhere}}\n"
    assert refusal(layer).endswith(": there is no folder nowhere")


def test_refused_state_machine_shows_the_interpreter_s_reason(refusal: Callable[[str], str], tmp_path: Path) -> None:
    (tmp_path / "machine.json").write_text("{}")
    message = refusal(
        "Resources:\n  M: {Type: AWS::Serverless::StateMachine, Properties: {DefinitionUri: machine.json,"
        " Role: 'arn:aws:iam::123456789012:role/r'}}\n"
    )
    assert message == "M: InvalidDefinition no such state"
