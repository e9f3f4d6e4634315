"""Reading a job file, with errors that name file, line and field."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sluice.errors import BadInputError, did_you_mean
from sluice.job import (
    Attempts,
    CheckStep,
    ChunkSize,
    Connection,
    Job,
    JobFile,
    Model,
    Parameter,
    SqlStep,
    ThrottleCheck,
    UpdateStep,
)
from sluice.settings import settings
from sluice.sqltext import first_word, parameters, read_queries, statements

BUILT_IN_PARAMETERS = {"run_ts", "run_id"}
OWN_TRANSACTION = {"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE", "VACUUM"}


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
    found = list(statements(text))
    if not found:
        raise BadInputError("the file holds no SQL", file=path)
    match step.kind:
        case "sql":
            for statement, at in found:
                if (word := first_word(statement)) in OWN_TRANSACTION:
                    raise BadInputError(
                        f"{word} is not allowed: the step is one transaction, the engine commits it", file=path, line=at
                    )
        case "update":
            if len(found) > 1 or first_word(found[0][0]) not in ("SELECT", "WITH"):
                raise BadInputError("one SELECT over chunk is expected", file=path, line=found[-1][1])
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
