"""The AWS JSON 1.0 operations: checks parameters, calls the service, shapes the answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .errors import ApiError
from .execution import ABORTED, FAILED, RUNNING, SUCCEEDED, TIMED_OUT
from .history import paginate
from .parse import parse

if TYPE_CHECKING:
    from .service import StateMachine, StateMachineService

log = logging.getLogger(__name__)

Body = dict[str, Any]
Operation = Callable[["StateMachineService", Body], Body]

SETTINGS = ("loggingConfiguration", "tracingConfiguration", "encryptionConfiguration")
STATUSES = (RUNNING, SUCCEEDED, FAILED, TIMED_OUT, ABORTED, "PENDING_REDRIVE")


def handle(service: StateMachineService, target: str, body: Body) -> tuple[int, Body]:
    """Answer one request: HTTP status and JSON body."""
    name = target.rpartition(".")[2]
    operation = OPERATIONS.get(name)
    if operation is None:
        message = f"The local Step Functions service has no operation '{name}'."
        return 400, ApiError("UnknownOperationException", message).body()
    try:
        return 200, operation(service, body)
    except ApiError as error:
        return error.status, error.body()
    except Exception:
        log.exception("%s broke", name)
        return 500, ApiError("InternalFailure", f"{name} failed in the local Step Functions service.").body()


def _text(body: Body, name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str):
        raise ApiError("ValidationException", f"'{name}' is required and must be a string.")
    return value


def _number(body: Body, name: str) -> int:
    value = body.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ApiError("ValidationException", f"'{name}' must be an integer.")
    return value


def _settings(body: Body) -> Body:
    if body.get("publish"):
        raise ApiError("ValidationException", "Versions (publish) are not supported by the local service.")
    return {name: body[name] for name in SETTINGS if name in body}


def _create(service: StateMachineService, body: Body) -> Body:
    if body.get("type", "STANDARD") != "STANDARD":
        raise ApiError("StateMachineTypeNotSupported", "The local service supports only STANDARD state machines.")
    tags = {tag["key"]: tag["value"] for tag in body.get("tags", [])}
    definition, role = _text(body, "definition"), _text(body, "roleArn")
    machine = service.create(_text(body, "name"), definition, role, settings=_settings(body), tags=tags)
    return {"stateMachineArn": machine.arn, "creationDate": machine.created}


def _update(service: StateMachineService, body: Body) -> Body:
    settings = _settings(body)
    if "definition" not in body and "roleArn" not in body and not settings:
        raise ApiError("MissingRequiredParameter", "Either the definition, the role ARN or a setting must be given.")
    machine = service.update(_text(body, "stateMachineArn"), body.get("definition"), body.get("roleArn"), settings)
    return {"updateDate": service.clock.now(), "revisionId": machine.revision}


def _delete(service: StateMachineService, body: Body) -> Body:
    service.delete(_text(body, "stateMachineArn"))
    return {}


def _summary(machine: StateMachine) -> Body:
    return {
        "stateMachineArn": machine.arn,
        "name": machine.name,
        "type": "STANDARD",
        "creationDate": machine.created,
    }


def _describe(service: StateMachineService, body: Body) -> Body:
    machine = service.machine(_text(body, "stateMachineArn"))
    return {
        **_summary(machine),
        "status": "ACTIVE",
        "definition": machine.text,
        "roleArn": machine.role_arn,
        "revisionId": machine.revision,
        "loggingConfiguration": {"level": "OFF", "includeExecutionData": False},
        "tracingConfiguration": {"enabled": False},
        **machine.settings,
    }


def _list(service: StateMachineService, body: Body) -> Body:
    machines = [_summary(machine) for machine in service.machines()]
    return paginate(machines, _number(body, "maxResults"), body.get("nextToken"), "stateMachines")


def _validate(service: StateMachineService, body: Body) -> Body:
    definition, problems = parse(_text(body, "definition"))
    worst_only = body.get("severity", "ERROR") == "ERROR"
    size = _number(body, "maxResults") or 100
    diagnostics = [
        {"severity": p.severity, "code": p.code, "message": p.message, "location": p.location}
        for p in problems
        if p.severity == "ERROR" or not worst_only
    ]
    return {
        "result": "FAIL" if definition is None else "OK",
        "diagnostics": diagnostics[:size],
        "truncated": len(diagnostics) > size,
    }


def _start(service: StateMachineService, body: Body) -> Body:
    execution = service.start_execution(_text(body, "stateMachineArn"), body.get("name"), body.get("input", "{}"))
    return {"executionArn": execution.arn, "startDate": execution.start}


def _describe_execution(service: StateMachineService, body: Body) -> Body:
    return service.execution(_text(body, "executionArn")).describe()


def _stop(service: StateMachineService, body: Body) -> Body:
    execution = service.execution(_text(body, "executionArn"))
    execution.abort(body.get("error"), body.get("cause"))
    return {"stopDate": execution.stop}


def _list_executions(service: StateMachineService, body: Body) -> Body:
    if ("stateMachineArn" in body) == ("mapRunArn" in body):
        raise ApiError("ValidationException", "Give either 'stateMachineArn' or 'mapRunArn'.")
    status = body.get("statusFilter")
    if status is not None and status not in STATUSES:
        raise ApiError("ValidationException", f"'statusFilter' must be one of {', '.join(STATUSES)}.")
    if "mapRunArn" in body:
        children = service.map_run(_text(body, "mapRunArn")).children
        found = [child for child in reversed(children) if child]
    else:
        found = service.executions(_text(body, "stateMachineArn"))
    shown = [execution.summary() for execution in found if status in (None, execution.status)]
    return paginate(shown, _number(body, "maxResults"), body.get("nextToken"), "executions")


def _history(service: StateMachineService, body: Body) -> Body:
    history = service.execution(_text(body, "executionArn")).history
    newest_first, with_data = bool(body.get("reverseOrder", False)), bool(body.get("includeExecutionData", True))
    return history.page(_number(body, "maxResults"), body.get("nextToken"), newest_first, with_data)


def _describe_map_run(service: StateMachineService, body: Body) -> Body:
    return service.map_run(_text(body, "mapRunArn")).describe()


def _list_map_runs(service: StateMachineService, body: Body) -> Body:
    runs = [run.summary() for run in service.map_runs(_text(body, "executionArn"))]
    return paginate(runs, _number(body, "maxResults"), body.get("nextToken"), "mapRuns")


def _update_map_run(service: StateMachineService, body: Body) -> Body:
    run = service.map_run(_text(body, "mapRunArn"))
    if run.status != RUNNING:
        raise ApiError("ValidationException", f"The Map Run is {run.status} and cannot be changed.")
    for name in ("maxConcurrency", "toleratedFailureCount", "toleratedFailurePercentage"):
        value = body.get(name, 0)
        if not isinstance(value, int | float) or value < 0:
            raise ApiError("ValidationException", f"'{name}' must be a number of at least 0.")
    run.update(body.get("maxConcurrency"), body.get("toleratedFailurePercentage"), body.get("toleratedFailureCount"))
    return {}


def _tag(service: StateMachineService, body: Body) -> Body:
    tags = service.machine(_text(body, "resourceArn")).tags
    tags.update({tag["key"]: tag["value"] for tag in body.get("tags", [])})
    return {}


def _untag(service: StateMachineService, body: Body) -> Body:
    tags = service.machine(_text(body, "resourceArn")).tags
    for key in body.get("tagKeys", []):
        tags.pop(key, None)
    return {}


def _list_tags(service: StateMachineService, body: Body) -> Body:
    tags = service.machine(_text(body, "resourceArn")).tags
    return {"tags": [{"key": key, "value": value} for key, value in tags.items()]}


OPERATIONS: dict[str, Operation] = {
    "CreateStateMachine": _create,
    "UpdateStateMachine": _update,
    "DeleteStateMachine": _delete,
    "DescribeStateMachine": _describe,
    "ListStateMachines": _list,
    "ValidateStateMachineDefinition": _validate,
    "StartExecution": _start,
    "DescribeExecution": _describe_execution,
    "StopExecution": _stop,
    "ListExecutions": _list_executions,
    "GetExecutionHistory": _history,
    "DescribeMapRun": _describe_map_run,
    "ListMapRuns": _list_map_runs,
    "UpdateMapRun": _update_map_run,
    "TagResource": _tag,
    "UntagResource": _untag,
    "ListTagsForResource": _list_tags,
}
