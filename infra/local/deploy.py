"""Making a template's resources: functions in our pool, state machines in our interpreter, the rest in moto.

What the template names is made or the deployment fails; the types that nothing on a laptop looks at are listed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.intrinsics import Intrinsics, TemplateError
from infra.local.lambda_function import Function, assemble_opt
from infra.local.lambda_pool import LambdaPool
from infra.local.template import ACCOUNT, SOURCE_BUCKET, Template

# Rights, logs' storage and observability: nothing here enforces or shows them.
IGNORED = {
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::CompositeAlarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::KMS::Alias",
    "AWS::KMS::Key",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
    "AWS::Logs::MetricFilter",
    "AWS::Logs::QueryDefinition",
    "AWS::S3::BucketPolicy",
    "AWS::SNS::TopicPolicy",
    "AWS::SQS::QueuePolicy",
    "AWS::SecretsManager::ResourcePolicy",
}


@dataclass
class Made:
    """A resource: what Ref gives, and what Fn::GetAtt gives."""

    ref: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Services:
    """Where resources are made. `client` gives a boto3 client for the front door."""

    client: Callable[[str], Any]
    pool: LambdaPool
    states: Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]
    endpoint_url: str
    region: str
    folder: Path


@dataclass(frozen=True)
class Deployment:
    """What was made: physical ids by logical id, and the template's outputs."""

    references: Mapping[str, str]
    outputs: Mapping[str, Any]
    types: Mapping[str, str]

    def of_type(self, kind: str) -> dict[str, str]:
        """Logical id → physical id of the resources of one type."""
        return {name: self.references[name] for name, type_ in self.types.items() if type_ == kind}


class Deployer:
    """Makes the resources of one template, each when another first refers to it."""

    def __init__(
        self,
        template: Template,
        services: Services,
        *,
        stack_name: str = "sluice",
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        self._template = template
        self._services = services
        self._stack_name = stack_name
        self._made: dict[str, Made] = {}
        self._in_progress: list[str] = []
        self._layers: dict[str, Path] = {}
        self._makers: dict[str, Callable[[str, dict[str, Any]], Made]] = {
            "AWS::Events::EventBus": self._event_bus,
            "AWS::Lambda::Function": self._function,
            "AWS::Lambda::LayerVersion": self._layer,
            "AWS::S3::Bucket": self._bucket,
            "AWS::SNS::Subscription": self._subscription,
            "AWS::SNS::Topic": self._topic,
            "AWS::SQS::Queue": self._queue,
            "AWS::SSM::Parameter": self._parameter,
            "AWS::Scheduler::Schedule": self._schedule,
            "AWS::Scheduler::ScheduleGroup": self._schedule_group,
            "AWS::SecretsManager::Secret": self._secret,
            "AWS::StepFunctions::StateMachine": self._state_machine,
        }
        pseudo = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Partition": "aws",
            "AWS::Region": services.region,
            "AWS::StackId": f"arn:aws:cloudformation:{services.region}:{ACCOUNT}:stack/{stack_name}/local",
            "AWS::StackName": stack_name,
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::NotificationARNs": [],
        }
        self._intrinsics = Intrinsics(
            template.parameters(parameters or {}, pseudo),
            template.body.get("Conditions") or {},
            template.body.get("Mappings") or {},
            reference=lambda name: self._make(name).ref,
            attribute=self._attribute,
        )

    def deploy(self) -> Deployment:
        """Make everything. Raises TemplateError, before anything is made where a type is unknown."""
        wanted = [name for name in self._template.resources if self._is_wanted(name)]
        for name in wanted:
            self._check_type(name)
        for name in wanted:
            self._make(name)
        outputs = {
            name: self._intrinsics.evaluate(output["Value"])
            for name, output in (self._template.body.get("Outputs") or {}).items()
            if "Condition" not in output or self._intrinsics.condition(output["Condition"])
        }
        references = {name: made.ref for name, made in self._made.items()}
        types = {name: self._template.resources[name]["Type"] for name in self._made}
        return Deployment(references, outputs, types)

    def _is_wanted(self, name: str) -> bool:
        condition = self._template.resources[name].get("Condition")
        return condition is None or self._intrinsics.condition(condition)

    def _check_type(self, name: str) -> None:
        kind = self._template.resources[name].get("Type", "")
        if kind not in self._makers and kind not in IGNORED:
            raise TemplateError(f"{name}: the local stack does not know resources of type {kind}")

    def _make(self, name: str) -> Made:
        if name in self._made:
            return self._made[name]
        resource = self._template.resources.get(name)
        if resource is None:
            raise TemplateError(f"the template has no resource or parameter {name}")
        if not self._is_wanted(name):
            raise TemplateError(f"{name} is used, but its condition {resource['Condition']} does not hold")
        if name in self._in_progress:
            raise TemplateError(f"circular reference: {' → '.join([*self._in_progress, name])}")
        self._in_progress.append(name)
        kind = resource["Type"]
        if kind in IGNORED:
            made = self._ignored(name, kind, resource.get("Properties") or {})
        else:
            made = self._makers[kind](name, self._intrinsics.evaluate(resource.get("Properties") or {}))
        self._in_progress.pop()
        self._made[name] = made
        return made

    def _attribute(self, name: str, path: str) -> Any:
        made = self._make(name)
        if path not in made.attributes:
            raise TemplateError(f"the local stack does not know the attribute {name}.{path}")
        return made.attributes[path]

    def _ignored(self, name: str, kind: str, properties: Mapping[str, Any]) -> Made:
        """References to what is not made still have their usual form."""
        physical = self._name(name)
        for key in ("LogGroupName", "RoleName", "AlarmName", "DashboardName"):
            if isinstance(given := properties.get(key), (str, dict)):
                physical = self._intrinsics.evaluate(given)
        if kind == "AWS::IAM::Role":
            arn = f"arn:aws:iam::{ACCOUNT}:role/{physical}"
        elif kind == "AWS::Logs::LogGroup":
            arn = self._arn("logs", f"log-group:{physical}:*")
        else:
            service, _, noun = kind.removeprefix("AWS::").partition("::")
            arn = self._arn(service.lower(), f"{noun.lower()}/{physical}")
        return Made(physical, {"Arn": arn, "RoleId": physical, "KeyId": physical, "PolicyArn": arn})

    def _name(self, logical_id: str) -> str:
        return f"{self._stack_name}-{logical_id}"

    def _arn(self, service: str, rest: str) -> str:
        return f"arn:aws:{service}:{self._services.region}:{ACCOUNT}:{rest}"

    def _layer(self, name: str, properties: dict[str, Any]) -> Made:
        layer = properties.get("LayerName", self._name(name))
        arn = self._arn("lambda", f"layer:{layer}:1")
        key = _local_key(name, properties["Content"])
        folder = self._template.path(key)
        if not folder.is_dir() and not self._is_built(key):
            raise TemplateError(f"{name}: there is no folder {key}")
        self._layers[arn] = folder
        return Made(arn, {"LayerVersionArn": arn})

    def _is_built(self, key: str) -> bool:
        """Whether `sam build` makes this layer's folder; here its packages come from the virtual environment."""
        for resource in self._template.source["Resources"].values():
            content = (resource.get("Properties") or {}).get("ContentUri")
            if content == key and "BuildMethod" in (resource.get("Metadata") or {}):
                return True
        return False

    def _function(self, name: str, properties: dict[str, Any]) -> Made:
        physical = properties.get("FunctionName", self._name(name))
        arn = self._arn("lambda", f"function:{physical}")
        key = _local_key(name, properties.get("Code") or {})
        code = self._template.path(key)
        module = code / (properties["Handler"].rpartition(".")[0].replace(".", "/") + ".py")
        if not module.is_file():
            raise TemplateError(f"{name}: there is no {module.relative_to(self._template.folder)}")
        logging = properties.get("LoggingConfig") or {}
        self._services.pool.add(
            Function(
                name=physical,
                arn=arn,
                handler=properties["Handler"],
                code=code,
                opt=self._opt(physical, properties.get("Layers") or []),
                environment=_strings((properties.get("Environment") or {}).get("Variables") or {}),
                timeout=float(properties.get("Timeout", 3)),
                memory=int(properties.get("MemorySize", 128)),
                reserved_concurrency=_optional_int(properties.get("ReservedConcurrentExecutions")),
                endpoint_url=self._services.endpoint_url,
                region=self._services.region,
                log_group=logging.get("LogGroup", ""),
                log_format=logging.get("LogFormat", "Text"),
                log_level=logging.get("ApplicationLogLevel", ""),
            )
        )
        return Made(physical, {"Arn": arn})

    def _opt(self, function: str, layers: list[str]) -> Path:
        """The stand-in for /opt. A layer that is not ours (a public one) is expected in the virtual environment."""
        opt = self._services.folder / "opt" / function
        shutil.rmtree(opt, ignore_errors=True)
        assemble_opt(opt, [self._layers[arn] for arn in layers if arn in self._layers])
        return opt

    def _state_machine(self, name: str, properties: dict[str, Any]) -> Made:
        physical = properties.get("StateMachineName", self._name(name))
        if "DefinitionS3Location" in properties:
            key = _local_key(name, properties["DefinitionS3Location"])
            try:
                text = self._template.path(key).read_text()
            except OSError as error:
                raise TemplateError(f"{name}: cannot read {key}: {error.strerror}") from None
        elif "DefinitionString" in properties:
            text = properties["DefinitionString"]
        else:
            raise TemplateError(f"{name}: the local stack wants a DefinitionUri")
        body = {
            "name": physical,
            "definition": substitute(name, text, properties.get("DefinitionSubstitutions") or {}),
            "roleArn": properties.get("RoleArn", f"arn:aws:iam::{ACCOUNT}:role/{physical}"),
            "type": properties.get("StateMachineType", "STANDARD"),
        }
        status, answer = self._services.states("AWSStepFunctions.CreateStateMachine", body)
        if status != 200:
            raise TemplateError(f"{name}: {answer.get('__type', '')} {answer.get('message', '')}")
        arn = answer["stateMachineArn"]
        return Made(arn, {"Arn": arn, "Name": physical, "StateMachineRevisionId": "INITIAL"})

    def _bucket(self, name: str, properties: dict[str, Any]) -> Made:
        bucket = properties.get("BucketName") or f"{self._name(name)}-{ACCOUNT}".lower()
        location = {} if self._services.region == "us-east-1" else {
            "CreateBucketConfiguration": {"LocationConstraint": self._services.region}
        }  # fmt: skip
        self._services.client("s3").create_bucket(Bucket=bucket, **location)
        domain = f"{bucket}.s3.amazonaws.com"
        return Made(bucket, {"Arn": f"arn:aws:s3:::{bucket}", "DomainName": domain})

    def _topic(self, name: str, properties: dict[str, Any]) -> Made:
        topic = properties.get("TopicName", self._name(name))
        client = self._services.client("sns")
        arn = client.create_topic(Name=topic)["TopicArn"]
        for subscription in properties.get("Subscription") or []:
            client.subscribe(TopicArn=arn, Protocol=subscription["Protocol"], Endpoint=subscription["Endpoint"])
        return Made(arn, {"TopicArn": arn, "TopicName": topic})

    def _subscription(self, name: str, properties: dict[str, Any]) -> Made:
        arn = self._services.client("sns").subscribe(
            TopicArn=properties["TopicArn"], Protocol=properties["Protocol"], Endpoint=properties["Endpoint"]
        )["SubscriptionArn"]
        return Made(arn, {"Arn": arn})

    def _queue(self, name: str, properties: dict[str, Any]) -> Made:
        queue = properties.get("QueueName", self._name(name))
        url = self._services.client("sqs").create_queue(QueueName=queue)["QueueUrl"]
        return Made(url, {"Arn": self._arn("sqs", queue), "QueueName": queue, "QueueUrl": url})

    def _event_bus(self, name: str, properties: dict[str, Any]) -> Made:
        bus = properties["Name"]
        arn = self._services.client("events").create_event_bus(Name=bus)["EventBusArn"]
        return Made(bus, {"Arn": arn, "Name": bus})

    def _parameter(self, name: str, properties: dict[str, Any]) -> Made:
        parameter = properties.get("Name", self._name(name))
        kind = properties.get("Type", "String")
        self._services.client("ssm").put_parameter(Name=parameter, Type=kind, Value=properties["Value"])
        return Made(parameter, {"Type": kind, "Value": properties["Value"]})

    def _secret(self, name: str, properties: dict[str, Any]) -> Made:
        secret = properties.get("Name", self._name(name))
        # A generated password would be of no use: nothing on a laptop has it.
        value = properties.get("SecretString", "{}")
        arn = self._services.client("secretsmanager").create_secret(Name=secret, SecretString=value)["ARN"]
        return Made(arn, {"Id": arn})

    def _schedule_group(self, name: str, properties: dict[str, Any]) -> Made:
        group = properties.get("Name", self._name(name))
        arn = self._services.client("scheduler").create_schedule_group(Name=group)["ScheduleGroupArn"]
        return Made(group, {"Arn": arn})

    def _schedule(self, name: str, properties: dict[str, Any]) -> Made:
        schedule = properties.get("Name", self._name(name))
        arn = self._services.client("scheduler").create_schedule(**{**properties, "Name": schedule})["ScheduleArn"]
        return Made(schedule, {"Arn": arn})


def substitute(name: str, text: str, values: Mapping[str, Any]) -> str:
    """Put DefinitionSubstitutions into a state machine's text, before it is JSON: `${N}` may stand for a number."""

    def replace(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise TemplateError(f"{name}: ${{{found[1]}}} is not among DefinitionSubstitutions")
        value = values[found[1]]
        return str(value).lower() if isinstance(value, bool) else str(value)

    return re.sub(r"\$\{([A-Za-z0-9_]+)\}", replace, text)


def _local_key(name: str, location: Mapping[str, Any]) -> str:
    bucket = location.get("S3Bucket") or location.get("Bucket")
    if bucket != SOURCE_BUCKET:
        raise TemplateError(f"{name}: the local stack wants code and definitions as local paths")
    return str(location.get("S3Key") or location.get("Key"))


def _strings(variables: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in variables.items()}


def _optional_int(value: Any) -> int | None:
    return None if value is None else int(value)
