"""The decorator around every Lambda: parse the event, know the deadline, log, name the errors."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, fields
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar

from aws_lambda_powertools.utilities import parameters
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError

from sluice.context import Context
from sluice.databases.postgres import Connections
from sluice.deadline import Deadline
from sluice.errors import BadInputError, SluiceError, TerminalError, TransientError
from sluice.job_file import load_job
from sluice.observability import logger

SECRET_SECONDS = 300
SECRET_REFUSED = ("ResourceNotFoundException", "AccessDeniedException", "InvalidRequestException", "DecryptionFailure")
LONGEST_TEXT_BYTES = 300


class JobEvent(Protocol):
    """Every event names its job."""

    @property
    def job(self) -> str: ...


Event = TypeVar("Event", bound=JobEvent)
Result = Mapping[str, object]
Handler = Callable[..., Result]


def read_secret(name: str, force: bool) -> str:
    """The text of a secret, kept for some minutes unless forced.

    Raises BadInputError where there is no such secret or it may not be read, TransientError where AWS does not answer.
    """
    try:
        return str(parameters.get_secret(name, max_age=SECRET_SECONDS, force_fetch=force))
    except GetParameterError as error:
        code = getattr(error.__context__, "response", {}).get("Error", {}).get("Code", "")
        kind = BadInputError if code in SECRET_REFUSED else TransientError
        raise kind(f"secret '{name}' cannot be read: {error}", secret=name) from None


connections = Connections(read_secret)


def entry_point(event_type: Callable[..., Event]) -> Callable[[Callable[[Event, Context], Result]], Handler]:
    """Makes a Lambda handler of a function over an event and a context.

    The handler raises the engine's errors under their own names, which the state machine matches, and any other as
    TerminalError without its message, which might quote a row.
    """

    def decorate(verb: Callable[[Event, Context], Result]) -> Handler:
        @wraps(verb)
        def lambda_handler(raw: Mapping[str, Any], lambda_context: Any) -> Result:
            try:
                event = parse(event_type, raw)
                logger.append_keys(**{name: value for name, value in asdict(event).items() if name in LOGGED})  # type: ignore[call-overload]
                result = verb(event, make_context(event.job, lambda_context))
                logger.info("done", extra={"result": result})
                return result
            except SluiceError as error:
                log = logger.warning if isinstance(error, TransientError) else logger.error
                log(str(error), extra={"error": type(error).__name__, "code": error.code})
                raise
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(place.filename).name}:{place.lineno}"
                logger.error("unexpected", extra={"error": type(error).__name__, "where": where})
                raise TerminalError(f"unexpected {type(error).__name__} at {where}") from None

        return lambda_handler

    return decorate


LOGGED = ("job", "run_key", "run_id", "step", "chunk")


def short(text: str) -> str:
    """A free text as an answer may carry it: cut to 300 bytes. The ledger has the whole of it."""
    return text.encode()[:LONGEST_TEXT_BYTES].decode(errors="ignore")


def make_context(job_name: str, lambda_context: Any) -> Context:
    """The context of one invocation."""
    job = load_job(job_name)
    return Context(
        job=job,
        database=connections.get(job.spec.connections[job.ledger_connection].secret),
        deadline=Deadline(lambda: lambda_context.get_remaining_time_in_millis() / 1000),
        request_id=lambda_context.aws_request_id,
    )


def parse(event_type: Callable[..., Event], raw: Mapping[str, Any]) -> Event:
    """The event as its dataclass; raises BadInputError for a missing, unknown or mistyped field."""
    known = {field.name: field for field in fields(event_type)}  # type: ignore[arg-type]
    for name in raw:
        if name not in known:
            raise BadInputError(f"unknown field '{name}' in the event: it takes {', '.join(known)}")
    for name, field in known.items():
        if name not in raw and field.default is MISSING and field.default_factory is MISSING:
            raise BadInputError(f"the event lacks '{name}': it takes {', '.join(known)}")
        expected = {"str": str, "int": int}.get(str(field.type))
        if name in raw and expected is not None and not isinstance(raw[name], expected):
            raise BadInputError(f"'{name}' in the event must be {field.type}")
    return event_type(**raw)
