"""The job file: its models, and reading it with errors that name file, line and field."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sluice.errors import BadInputError
from sluice.settings import settings
from sluice.sqltext import Query, first_words, parameters, read_queries, single_statement

BUILT_IN_PARAMETERS = {"run_ts", "run_id"}
OWN_TRANSACTION = {"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE", "VACUUM"}

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


def job_path(name: str) -> Path:
    """The file of job `pack/job`, or of `pack` where the job is called like its pack.

    Raises BadInputError, with the names there are, where it does not exist.
    """
    packs = settings().sql_root / "packs"
    pack, _, job = name.partition("/")
    path = packs / pack / f"{job or pack}.job.yaml"
    if not path.is_file() or ".." in path.parts:
        known = job_names()
        raise BadInputError(f"there is no job '{name}'{did_you_mean(name, known)}; jobs: {', '.join(known) or 'none'}")
    return path


def job_names() -> list[str]:
    """Every job there is, as `pack/job`."""
    paths = (settings().sql_root / "packs").glob("*/*.job.yaml")
    return sorted(f"{path.parent.name}/{path.name.removesuffix('.job.yaml')}" for path in paths)


FileState = tuple[tuple[int, int], ...]
CACHE: dict[Path, tuple[FileState | None, Job]] = {}


def load_job(name: str) -> Job:
    """The job of that name, read and checked; kept until one of its files changes.

    Raises BadInputError with file, line and what was expected.
    """
    path = job_path(name)
    if path in CACHE:
        state, job = CACHE[path]
        if state == file_state(path, job.texts):
            return job
    job = read_job(path)
    CACHE[path] = (file_state(path, job.texts), job)
    return job


def file_state(path: Path, texts: Mapping[str, str]) -> FileState | None:
    try:
        stats = [file.stat() for file in (path, *(path.parent / name for name in texts))]
    except FileNotFoundError:
        return None
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


def read_job(path: Path) -> Job:
    """Read one job file and the SQL files that it names."""
    text = path.read_text(encoding="utf-8")
    try:
        data, tree = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInputError(f"not YAML: {error.problem}", file=path, line=line) from None
    lines = Lines(tree)
    try:
        spec = JobFile.model_validate(data)
    except ValidationError as error:
        raise first_problem(path, lines, error) from None
    if spec.job != path.name.removesuffix(".job.yaml"):
        raise BadInputError(
            f"job: is '{spec.job}', the file's name says '{path.name.removesuffix('.job.yaml')}'",
            file=path,
            line=lines.of(("job",)),
        )
    job = Job(path, spec, dict(read_sql_files(path, spec, lines)))
    for index, step in enumerate(spec.steps):
        check_step_sql(job, step, lines.of(("steps", index)))
    return job


def read_sql_files(path: Path, spec: JobFile, lines: Lines) -> Iterator[tuple[str, str]]:
    named = [(("steps", index, "file"), step.file) for index, step in enumerate(spec.steps)]
    named += [(("throttle", index, "file"), check.file) for index, check in enumerate(spec.throttle)]
    for place, file in named:
        if file is None:
            continue
        sql = path.parent / file
        if not sql.is_file():
            raise BadInputError(f"{place[0]}.{place[1]}.file: there is no file {sql}", file=path, line=lines.of(place))
        yield file, sql.read_text(encoding="utf-8")


def check_step_sql(job: Job, step: SqlStep | UpdateStep | CheckStep, line: int) -> None:
    """What a step's SQL can be refused for without a database."""
    known = set(job.spec.params) | BUILT_IN_PARAMETERS
    if isinstance(step, UpdateStep) and step.eligible:
        check_parameters(parameters(step.eligible), known, job.path, line)
    if step.file is None:
        return
    path, text = job.path.parent / step.file, job.texts[step.file]
    check_parameters(parameters(text), known, path)
    words = list(first_words(text))
    if not words:
        raise BadInputError("the file holds no SQL", file=path)
    match step.kind:
        case "sql":
            for word, at in words:
                if word in OWN_TRANSACTION:
                    raise BadInputError(
                        f"{word} is not allowed: the step is one transaction, the engine commits it", file=path, line=at
                    )
        case "update":
            if len(words) > 1 or words[0][0] not in ("SELECT", "WITH"):
                raise BadInputError("one SELECT over chunk is expected", file=path, line=words[-1][1])
        case "check":
            for query in read_queries(path).values():
                if query.attributes.get("severity", "error") not in ("error", "warning"):
                    raise BadInputError("severity is error or warning", file=path, line=query.line)


def check_parameters(used: set[str], known: set[str], file: Path, line: int | None = None) -> None:
    for name in sorted(used - known):
        raise BadInputError(f"unknown parameter ':{name}'{did_you_mean(name, known)}", file=file, line=line)


class Lines:
    """Line numbers of a YAML document by path of keys and indexes."""

    def __init__(self, tree: yaml.Node | None) -> None:
        self.tree = tree

    def of(self, place: tuple[int | str, ...]) -> int:
        """The line of the deepest part of the path that exists; a mapping's key rather than its value."""
        node, line = self.tree, 1
        for part in place:
            if isinstance(node, yaml.MappingNode):
                found = [(key, value) for key, value in node.value if key.value == part]
                if not found:
                    continue
                line, node = found[0][0].start_mark.line + 1, found[0][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                line = node.start_mark.line + 1
        return line


def first_problem(path: Path, lines: Lines, error: ValidationError) -> BadInputError:
    """The first of pydantic's findings as one line; unknown keys first, for a typo also leaves a key missing."""
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    detail = details[0]
    place = tuple(part for part in detail["loc"] if part not in ("sql", "update", "check"))
    field = ".".join(str(part) for part in place)
    line = lines.of(place)
    match detail["type"]:
        case "extra_forbidden":
            message = f"unknown key{did_you_mean(str(place[-1]), keys_at(detail['loc']))}"
        case "missing":
            message = "this key is required"
        case "union_tag_invalid" | "union_tag_not_found":
            field, message = f"{field}.kind", "expected sql, update or check"
            line = lines.of((*place, "kind"))
        case "value_error":
            message = str(detail["ctx"]["error"])
        case _:
            message = f"{detail['msg'][0].lower()}{detail['msg'][1:]}, found {shown(detail['input'])}"
    return BadInputError(f"{field}: {message}" if field else message, file=path, line=line, field=field)


def shown(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}…"


def keys_at(place: tuple[int | str, ...]) -> list[str]:
    """The keys that the model at this place of a job file knows."""
    models: dict[str, type[Model]] = {
        "sql": SqlStep,
        "update": UpdateStep,
        "check": CheckStep,
        "chunk": ChunkSize,
        "throttle": ThrottleCheck,
        "connections": Connection,
        "params": Parameter,
        "attempts": Attempts,
    }
    model = next((models[str(part)] for part in reversed(place[:-1]) if part in models), JobFile)
    return list(model.model_fields)


def did_you_mean(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean '{close[0]}'?" if close else ""


def json_schema() -> dict[str, Any]:
    """JSON Schema of the job file, for editors."""
    schema = JobFile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Sluice job file"
    return schema
