"""A job file that is wrong gets one line: file, line, field, and what to write instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sluice.errors import BadInputError
from sluice.job import UpdateStep
from sluice.job_file import job_names, job_path, read_job
from sluice.ledger import migrations, queries

JOB = """\
job: demo
connections:
  target: {secret: sluice/target}
params:
  since: {type: date, default: 2025-01-01}
  label: {}
steps:
  - name: prepare
    kind: sql
    file: prepare.sql
  - name: double
    kind: update
    file: double.sql
    target: public.visits
    key: [VisitDate, SSN]
    flag: UpdateFlag
    stamp: UpdatedDate
  - name: expect
    kind: check
    file: expect.sql
    definition_of: double
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "demo.job.yaml").write_text(JOB)
    (folder / "prepare.sql").write_text("DELETE FROM public.work WHERE day < :since;\nANALYZE public.work;\n")
    (folder / "double.sql").write_text('SELECT chunk.row_id, 2 AS "Doubled" FROM chunk')
    (folder / "expect.sql").write_text("-- none\n-- nothing offends\nSELECT 1 WHERE false;\n")
    return folder


def problem(folder: Path, old: str, new: str) -> str:
    """What reading the job says after a change to it, without the folder's name."""
    path = folder / "demo.job.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(BadInputError) as caught:
        read_job(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{folder}/", "")


def test_a_job_that_is_right(folder: Path) -> None:
    job = read_job(folder / "demo.job.yaml")
    assert (job.name, job.ledger_connection) == ("demo/demo", "target")
    step = job.step("double")
    assert isinstance(step, UpdateStep) and step.chunk.target_rows == 10_000
    assert job.bind({"label": "x"}) == {"since": "2025-01-01", "label": "x"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("    flag:", "    flagg:", "demo.job.yaml:16: steps.1.flagg: unknown key, did you mean 'flag'?"),
        ("    target: public.visits\n", "", "demo.job.yaml:11: steps.1.target: this key is required"),
        ("public.visits", "visits", 'demo.job.yaml:14: steps.1.target: .* found "visits"'),
        ("kind: sql", "kind: sequel", "demo.job.yaml:9: steps.0.kind: expected sql, update or check"),
        ("[VisitDate, SSN]", "VisitDate", 'demo.job.yaml:15: steps.1.key: .*list, found "VisitDate"'),
        ("double.sql", "missing.sql", "demo.job.yaml:13: steps.1.file: there is no file missing.sql"),
        ("    flag: UpdateFlag\n", "", "demo.job.yaml:11: steps.1: mark: visible needs flag"),
        ("stamp: UpdatedDate", "stamp: UpdateFlag", "demo.job.yaml:11: steps.1: flag and stamp must be two columns"),
        ("definition_of: double", "definition_of: prepare", "no earlier update step is called 'prepare'"),
        ("name: expect", "name: double", "two steps are called 'double'"),
        ("job: demo", "job: other", "demo.job.yaml:1: job: is 'other', the file's name says 'demo'"),
        ("type: date", "type: day", 'demo.job.yaml:5: params.since.type: .* found "day"'),
        ("    stamp:", "    chunk: {target_rows: x}\n    stamp:", 'steps.1.chunk.target_rows: .*integer, found "x"'),
        ("    stamp:", "    chunk: {target_rows: 9, max_rows: 3}\n    stamp:", "max_rows must be at least target_rows"),
        ("params:", "params: [", "demo.job.yaml:6: not YAML"),
        ("steps:", "throttle: [{name: lock_wait}]\nsteps:", "take max_seconds, any other name takes file"),
    ],
)
def test_what_is_wrong_with_a_job_file(folder: Path, old: str, new: str, message: str) -> None:
    assert re.search(message, problem(folder, old, new))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("prepare.sql", "SELECT 1;\nCOMMIT;", "prepare.sql:2: COMMIT is not allowed"),
        ("prepare.sql", "SELECT :sinc", "prepare.sql: unknown parameter ':sinc', did you mean 'since'?"),
        ("prepare.sql", "-- nothing\n", "prepare.sql: the file holds no SQL"),
        ("double.sql", "UPDATE t SET a = 1", "double.sql:1: one SELECT over chunk is expected"),
        ("double.sql", "SELECT 1;\nSELECT 2", "double.sql:2: one SELECT over chunk is expected"),
        ("expect.sql", "SELECT 1", "expect.sql: no query found"),
        ("expect.sql", "-- a\n-- b\n-- severity: fatal\nSELECT 1", "expect.sql:1: severity is error or warning"),
    ],
)
def test_what_is_wrong_with_its_sql(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(BadInputError, match=message):
        read_job(folder / "demo.job.yaml")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labl": "x"}, "unknown parameter 'labl', did you mean 'label'"),
        ({}, r"parameter 'label' \(text\) needs a value"),
        ({"label": "x", "since": "yesterday"}, "parameter 'since' takes a date, not 'yesterday'"),
    ],
)
def test_what_is_wrong_with_parameters(folder: Path, given: dict[str, str], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        read_job(folder / "demo.job.yaml").bind(given)


def test_an_unknown_job_names_the_ones_there_are() -> None:
    with pytest.raises(BadInputError, match="there is no job 'conflict_reprot', did you mean 'conflict_report"):
        job_path("conflict_reprot")
    for escape in ("../packs/conflict_report", "conflict_report/../conflict_report/conflict_report"):
        with pytest.raises(BadInputError, match="there is no job"):
            job_path(escape)


@pytest.mark.parametrize("name", job_names())
def test_every_job_of_the_packs_can_be_read(name: str) -> None:
    assert read_job(job_path(name)).name == name


def test_every_named_ledger_query_is_used_and_every_used_one_exists() -> None:
    engine = Path(__file__).resolve().parents[2] / "layers" / "engine" / "sluice"
    local = Path(__file__).resolve().parents[2] / "infra" / "local"
    code = "\n".join(path.read_text() for folder in (engine, local) for path in folder.rglob("*.py"))
    unused = [name for name in queries() if f'"{name}"' not in code]
    assert unused == []


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [migration.version for migration in migrations()] == list(range(1, len(migrations()) + 1))
