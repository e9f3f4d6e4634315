"""The job files: both read, both the same but for how the update is cut; the SELECT fits its target."""

from __future__ import annotations

import pytest
from psycopg2.extensions import cursor as Cursor

from sluice.job import Job, UpdateStep
from sluice.job_file import read_job
from sluice.sqltext import read_queries
from tests.packs.conflict_report import harness
from tests.packs.conflict_report.world import World


def job(name: str) -> Job:
    return read_job(harness.PACK / f"{name}.job.yaml")


def update_step(name: str) -> UpdateStep:
    (step,) = (step for step in job(name).spec.steps if isinstance(step, UpdateStep))
    return step


def test_the_monolith_differs_only_in_how_the_update_is_cut() -> None:
    chunked, whole = job("conflict_report").spec, job("conflict_report_monolith").spec
    cut = {"mark", "chunk"}
    assert whole.model_dump(exclude={"job", "description", "steps"}) == chunked.model_dump(
        exclude={"job", "description", "steps"}
    )
    for one, other in zip(chunked.steps, whole.steps, strict=True):
        assert one.model_dump(exclude=cut) == other.model_dump(exclude=cut)
    assert (update_step("conflict_report").chunk.whole, update_step("conflict_report_monolith").chunk.whole) == (
        False,
        True,
    )


def test_the_select_sets_existing_columns_and_neither_key_nor_flag_nor_stamp(cursor: Cursor) -> None:
    step = update_step("conflict_report")
    computed = harness.columns(cursor)
    cursor.execute("SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0", (step.target,))
    existing = [name for (name,) in cursor.fetchall()]
    assert len(computed) == len(set(computed)) >= 20
    assert existing[existing.index("UpdatedDate") + 1 :] == computed


def test_no_computed_column_is_indexed(cursor: Cursor) -> None:
    """An index on a written column would end HOT updates."""
    cursor.execute(
        "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY(indkey)"
        " WHERE indrelid = 'public.conflictvisitmaps'::regclass"
    )
    written = {*harness.columns(cursor), "UpdateFlag", "UpdatedDate"}
    assert written.isdisjoint(name for (name,) in cursor.fetchall())


def test_the_schema_can_be_applied_again(cursor: Cursor) -> None:
    harness.create_tables(cursor)


def test_an_empty_database_is_no_conflict_and_no_error(cursor: Cursor) -> None:
    World([]).write(cursor)
    harness.copy_to_temp(cursor)
    assert harness.compute(cursor) == []
    assert harness.update(cursor) == 0
    assert harness.check(cursor) == {}


@pytest.mark.parametrize("file", ["01_copy_to_temp.sql", "02_update_conflicts.sql", "03_expect.sql", "generate.sql"])
def test_statements_are_named_and_described(file: str) -> None:
    for query in read_queries(harness.PACK / file).values():
        assert query.description


def test_the_readme_describes_every_column(cursor: Cursor) -> None:
    readme = (harness.PACK / "README.md").read_text(encoding="utf-8")
    assert [name for name in harness.columns(cursor) if f"`{name}`" not in readme] == []
