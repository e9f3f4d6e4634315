"""The job: its models, and its parameters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sluice.errors import BadInputError, did_you_mean
from sluice.sqltext import Query, read_queries, single_statement

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
QualifiedName = Annotated[str, Field(pattern=r"^[^.\s]+\.[^.\s]+$", description="schema.table")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Connection(Model):
    """A database, by the name of its secret in AWS Secrets Manager."""

    secret: str = Field(description="Secret name or ARN; its JSON holds host, port, username, password, dbname.")


class Parameter(Model):
    """A value that a run may set; the SQL reads it as :name."""

    type: Literal["text", "integer", "number", "boolean", "date", "timestamp"] = "text"
    default: str | int | float | bool | date | datetime | None = Field(
        None, description="Used where a run gives no value; without one the run must."
    )
    description: str = ""


class ThrottleCheck(Model):
    """A health check that holds chunks back while it gives a reason to."""

    name: Name
    max_seconds: float | None = Field(None, gt=0, description="Limit of the built-in lock_wait or replica_lag.")
    file: str | None = Field(None, description="SQL file; a returned row holds back, its first column is the reason.")

    @model_validator(mode="after")
    def one_source(self) -> ThrottleCheck:
        built_in = self.name in ("lock_wait", "replica_lag")
        if built_in != (self.max_seconds is not None) or built_in == (self.file is not None):
            raise ValueError("lock_wait and replica_lag take max_seconds, any other name takes file")
        return self


class ChunkSize(Model):
    """How an update step is cut."""

    target_rows: int = Field(10_000, ge=1, description="Rows a chunk aims at.")
    max_rows: int = Field(50_000, ge=1, description="Rows a chunk holds at most; a larger key group stands alone.")
    max_keys: int | None = Field(None, ge=1, description="Key groups a chunk holds at most; no limit by default.")
    whole: bool = Field(False, description="One chunk and one statement for everything: the monolith, to compare.")

    @model_validator(mode="after")
    def ordered(self) -> ChunkSize:
        if self.max_rows < self.target_rows:
            raise ValueError("max_rows must be at least target_rows")
        return self


class SqlStep(Model):
    """One SQL file in one transaction, once per run."""

    name: Name
    kind: Literal["sql"]
    file: str


class UpdateStep(Model):
    """A chunked update by one SELECT over the relation `chunk`."""

    name: Name
    kind: Literal["update"]
    file: str = Field(description="One SELECT: chunk.row_id, then each column to set, named as in the target.")
    target: QualifiedName
    key: list[str] = Field(min_length=1, max_length=8, description="Columns that chunks are cut by.")
    flag: str | None = Field(None, description="Column that is 1 while a row is claimed; needed unless mark is fused.")
    stamp: str = Field(description="Column that keeps the run: timestamptz (its run_ts) or bigint (its run_id).")
    eligible: str | None = Field(None, description="SQL condition on the target's columns; all rows by default.")
    mark: Literal["visible", "fused", "run"] = "visible"
    late_rows: Literal["sweep", "report"] = "sweep"
    max_rounds: int = Field(6, ge=1, le=100, description="Rounds of one chunk, and waves of late rows.")
    chunk: ChunkSize = ChunkSize.model_validate({})

    @model_validator(mode="after")
    def flag_for_mark(self) -> UpdateStep:
        if self.mark != "fused" and self.flag is None:
            raise ValueError(f"mark: {self.mark} needs flag: the column that is 1 while a row is claimed")
        if self.flag == self.stamp:
            raise ValueError("flag and stamp must be two columns")
        return self


class CheckStep(Model):
    """Named queries that must return no rows."""

    name: Name
    kind: Literal["check"]
    file: str | None = Field(None, description="Queries; `-- severity: warning` reports only, error fails the run.")
    definition_of: Name | None = Field(None, description="Update step whose stored values must equal its SELECT.")

    @model_validator(mode="after")
    def something_to_check(self) -> CheckStep:
        if self.file is None and self.definition_of is None:
            raise ValueError("a check step needs file, definition_of or both")
        return self


Step = Annotated[SqlStep | UpdateStep | CheckStep, Field(discriminator="kind")]


class Attempts(Model):
    """How often a chunk may fail before it is set aside."""

    max_failures: int = Field(5, ge=1, description="Crashes and lone timeouts of a chunk until quarantine.")
    max_transient: int = Field(30, ge=1, description="Deadlocks, lock waits and lost connections until quarantine.")


class JobFile(Model):
    """A job: connections, parameters and ordered steps."""

    job: Name
    description: str = ""
    connections: dict[Name, Connection] = Field(min_length=1)
    ledger: Name | None = Field(None, description="Connection that keeps the ledger; the only one by default.")
    params: dict[Name, Parameter] = {}
    max_concurrency: int = Field(5, ge=1, le=1000, description="Chunks at work at once.")
    statement_timeout_seconds: int = Field(840, ge=1, description="Limit of one statement; Lambda's time also limits.")
    work_mem: str = Field("64MB", pattern=r"^\d+(kB|MB|GB)$", description="work_mem of the job's transactions.")
    attempts: Attempts = Attempts.model_validate({})
    throttle: list[ThrottleCheck] = []
    steps: list[Step] = Field(min_length=1)

    @model_validator(mode="after")
    def consistent(self) -> JobFile:
        if self.ledger is None and len(self.connections) > 1:
            raise ValueError("ledger: name the connection that keeps the ledger, there are several")
        if self.ledger is not None and self.ledger not in self.connections:
            raise ValueError(f"ledger: there is no connection '{self.ledger}'")
        seen: dict[str, Step] = {}
        for step in self.steps:
            if step.name in seen:
                raise ValueError(f"two steps are called '{step.name}'")
            if isinstance(step, CheckStep) and step.definition_of is not None:
                defined = seen.get(step.definition_of)
                if not isinstance(defined, UpdateStep):
                    raise ValueError(f"definition_of: no earlier update step is called '{step.definition_of}'")
            seen[step.name] = step
        return self


class Job:
    """A job file together with the SQL it names.

    Attributes: path (the job file), spec (its models), texts (SQL by file name, as written).
    """

    def __init__(self, path: Path, spec: JobFile, texts: Mapping[str, str]) -> None:
        self.path = path
        self.spec = spec
        self.texts = texts

    @property
    def name(self) -> str:
        """`pack/job`, as a run names it."""
        return f"{self.path.parent.name}/{self.path.name.removesuffix('.job.yaml')}"

    @property
    def ledger_connection(self) -> str:
        return self.spec.ledger or next(iter(self.spec.connections))

    @cached_property
    def sha256(self) -> str:
        """Digest of everything that decides what a run does: the job's models and its SQL."""
        frozen = {"spec": self.spec.model_dump(mode="json"), "sql": dict(sorted(self.texts.items()))}
        return hashlib.sha256(json.dumps(frozen, sort_keys=True).encode()).hexdigest()

    def step(self, name: str) -> SqlStep | UpdateStep | CheckStep:
        """The step of that name; raises BadInputError where there is none."""
        for step in self.spec.steps:
            if step.name == name:
                return step
        raise BadInputError(f"there is no step '{name}'", file=self.path)

    def queries(self, file: str) -> dict[str, Query]:
        return read_queries(self.path.parent / file)

    def sql(self, file: str) -> str:
        """One statement of the pack, without its closing semicolon."""
        return single_statement(self.texts[file])

    def bind(self, given: Mapping[str, object]) -> dict[str, str | int | float | bool]:
        """Parameter values of a run: what was given, else the default, checked against the type.

        Raises BadInputError for an unknown name, a missing value or a value of another type.
        """
        for name in given:
            if name not in self.spec.params:
                raise BadInputError(f"unknown parameter '{name}'{did_you_mean(name, self.spec.params)}", file=self.path)
        values = {}
        for name, parameter in self.spec.params.items():
            value = given.get(name, parameter.default)
            if value is None:
                raise BadInputError(f"parameter '{name}' ({parameter.type}) needs a value", file=self.path)
            values[name] = convert(self.path, name, parameter.type, value)
        return values


def convert(path: Path, name: str, kind: str, value: object) -> str | int | float | bool:
    """The value as its JSON form for the ledger; dates and timestamps in ISO 8601."""
    text = value.isoformat() if isinstance(value, date) else str(value)
    try:
        match kind:
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case "boolean":
                return {"true": True, "false": False}[text.lower()]
            case "date":
                return date.fromisoformat(text).isoformat()
            case "timestamp":
                return datetime.fromisoformat(text).isoformat()
            case _:
                return text
    except (ValueError, KeyError):
        raise BadInputError(f"parameter '{name}' takes a {kind}, not '{text}'", file=path) from None


def json_schema() -> dict[str, Any]:
    """JSON Schema of the job file, for editors."""
    schema = JobFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Sluice job file"
    return schema
