"""A state machine definition as the interpreter runs it: models without behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .jsonata import Template


@dataclass(frozen=True)
class Retrier:
    """One entry of Retry; intervals in seconds."""

    errors: tuple[str, ...]
    interval: int = 1
    max_attempts: int = 3
    backoff: float = 2.0
    max_delay: int | None = None
    full_jitter: bool = False


@dataclass(frozen=True)
class Catcher:
    """One entry of Catch."""

    errors: tuple[str, ...]
    next: str
    output: Template | None
    assign: Mapping[str, Template]


@dataclass(frozen=True, kw_only=True)
class State:
    """What all states share. `next` is None where the state ends its branch."""

    name: str
    type: str
    next: str | None = None
    output: Template | None = None
    assign: Mapping[str, Template] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Pass(State):
    """Hands on its input or Output."""


@dataclass(frozen=True, kw_only=True)
class Succeed(State):
    """Ends the branch well."""


@dataclass(frozen=True, kw_only=True)
class Fail(State):
    """Ends the branch with an error."""

    error: Template | None
    cause: Template | None


@dataclass(frozen=True, kw_only=True)
class Wait(State):
    """Waits for a number of seconds or until a time; exactly one of the two is set."""

    seconds: Template | None
    timestamp: Template | None


@dataclass(frozen=True)
class ChoiceRule:
    """One entry of Choices."""

    condition: Template
    next: str
    output: Template | None
    assign: Mapping[str, Template]


@dataclass(frozen=True, kw_only=True)
class Choice(State):
    """Goes where the first true condition leads; `next` is the Default."""

    rules: tuple[ChoiceRule, ...]


@dataclass(frozen=True, kw_only=True)
class Caught(State):
    """A state whose errors Retry and Catch may handle."""

    retry: tuple[Retrier, ...] = ()
    catch: tuple[Catcher, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Task(Caught):
    """One call of a service: `integration` is `lambda:invoke`, `sns:publish` or `states:startExecution.sync:2`."""

    integration: str
    arguments: Template | None
    timeout: Template | None


@dataclass(frozen=True)
class Processor:
    """A set of states with its start: a whole machine or what a Map runs for each item."""

    start_at: str
    states: Mapping[str, State]


@dataclass(frozen=True)
class ItemReader:
    """Where a Distributed Map finds its items."""

    arguments: Template
    max_items: Template | None


@dataclass(frozen=True, kw_only=True)
class Map(Caught):
    """Runs its processor once an item. `label` is set for the distributed kind only."""

    processor: Processor
    distributed: bool
    label: str
    items: Template | None
    selector: Template | None
    reader: ItemReader | None
    result_writer: Template | None
    max_concurrency: Template | None
    tolerated_percentage: Template | None
    tolerated_count: Template | None


@dataclass(frozen=True)
class Definition:
    """A whole state machine; `timeout` is the execution's TimeoutSeconds."""

    processor: Processor
    timeout: int | None
