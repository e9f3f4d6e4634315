"""Reading template.yaml: the SAM transform, parameters and conditions, offline."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra.local.intrinsics import TemplateError

ACCOUNT = "123456789012"
# The translator wants code and definitions to be uploaded already; this bucket stands for the template's folder.
SOURCE_BUCKET = "template-folder"
LOCAL_URIS = {
    "AWS::Serverless::Function": "CodeUri",
    "AWS::Serverless::LayerVersion": "ContentUri",
    "AWS::Serverless::StateMachine": "DefinitionUri",
}


@dataclass(frozen=True)
class Template:
    """A template after the SAM transform. `folder` is what its local paths are relative to."""

    folder: Path
    body: Mapping[str, Any]
    source: Mapping[str, Any]

    @property
    def resources(self) -> Mapping[str, Mapping[str, Any]]:
        resources: Mapping[str, Mapping[str, Any]] = self.body.get("Resources") or {}
        return resources

    def path(self, key: str) -> Path:
        """The local file or folder behind a key in `SOURCE_BUCKET`."""
        return (self.folder / key).resolve()

    def parameters(self, given: Mapping[str, str], pseudo: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter's value, and the pseudo parameters. Raises TemplateError on a missing or unknown one."""
        declared: Mapping[str, Mapping[str, Any]] = self.body.get("Parameters") or {}
        if unknown := set(given) - set(declared):
            raise TemplateError(f"the template has no parameter {', '.join(sorted(unknown))}")
        return {name: _parameter(name, declared[name], given) for name in declared} | dict(pseudo)


def _parameter(name: str, declaration: Mapping[str, Any], given: Mapping[str, str]) -> Any:
    kind = declaration.get("Type", "String")
    if kind.startswith("AWS::SSM::"):
        raise TemplateError(f"parameter {name}: the local stack has no parameters of type {kind}")
    value = given.get(name, declaration.get("Default"))
    if value is None:
        raise TemplateError(f"parameter {name} has no default; give it a value")
    allowed = declaration.get("AllowedValues")
    if allowed and str(value) not in map(str, allowed):
        raise TemplateError(f"parameter {name} must be one of {', '.join(map(str, allowed))}, not {value}")
    if kind == "CommaDelimitedList" or kind.startswith("List<"):
        return [item.strip() for item in str(value).split(",") if item.strip()]
    return str(value)


def load_template(path: Path, *, region: str, cache: Path | None = None) -> Template:
    """Read and transform a template.

    The translator takes a second to import, so its result is kept in the folder `cache`, by content.
    Raises TemplateError with the translator's own message.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise TemplateError(f"cannot read {path}: {error.strerror}") from None
    source = _parse(text, path)
    version = importlib.metadata.version("aws-sam-translator")
    kept = cache and cache / f"{hashlib.sha256(f'{version} {region} {text}'.encode()).hexdigest()[:24]}.json"
    if kept and kept.exists():
        body = json.loads(kept.read_text())
    else:
        body = _transform(_with_placeholders(source), path, region)
        if kept:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(body))
    return Template(path.parent.resolve(), body, source)


def _transform(source: dict[str, Any], path: Path, region: str) -> Any:
    import boto3
    from samtranslator.model.exceptions import InvalidDocumentException
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    session = boto3.session.Session(region_name=region)
    translator = Translator(None, Parser(), boto_session=session)
    try:
        # Managed policies' ARNs come from IAM, and nobody checks policies here.
        return translator.translate(source, parameter_values={}, get_managed_policy_map=dict)
    except InvalidDocumentException as error:
        reasons = "; ".join(cause.message for cause in error.causes)
        raise TemplateError(f"{path}: {reasons}") from None


def _with_placeholders(source: Mapping[str, Any]) -> dict[str, Any]:
    """A copy in which local paths look uploaded, as the translator requires."""
    body: dict[str, Any] = copy.deepcopy(dict(source))
    for properties, name in _uri_holders(body):
        uri = properties[name]
        if isinstance(uri, str) and not uri.startswith("s3://"):
            properties[name] = f"s3://{SOURCE_BUCKET}/{uri}"
    return body


def _uri_holders(body: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    for kind, name in LOCAL_URIS.items():
        shared = (body.get("Globals") or {}).get(kind.rpartition("::")[2]) or {}
        if name in shared:
            yield shared, name
        for resource in (body.get("Resources") or {}).values():
            if resource.get("Type") == kind and name in (resource.get("Properties") or {}):
                yield resource["Properties"], name


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short tags: `!Sub x` is `{"Fn::Sub": "x"}`."""


def _short_tag(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_tag)
# A date such as the template's version is a string to CloudFormation.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: str(node.value))


def _parse(text: str, path: Path) -> dict[str, Any]:
    try:
        body = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise TemplateError(f"{path}: {error}") from None
    if not isinstance(body, dict) or not isinstance(body.get("Resources"), dict):
        raise TemplateError(f"{path} has no Resources")
    return body
