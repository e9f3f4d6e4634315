"""Plans: chunks partition the key space whatever its types, and hold whole key groups of the size asked for: I1, I2."""

from __future__ import annotations

import itertools
import os
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg2.extras import execute_values

from infra.local.postgres import Postgres as Server
from sluice.chunks import Cut, Cutter
from sluice.context import Context, run_values
from sluice.databases.postgres import Postgres
from sluice.job import ChunkSize, Job, UpdateStep
from sluice.job_file import read_job
from sluice.ledger import Ledger
from sluice.run import open_run, plan_round
from sluice.steps.update_sql import Bounds
from sluice.steps.update_target import update_sql
from tests.connections import facts_of

THOROUGH = bool(os.environ.get("SLUICE_THOROUGH"))
PROFILE = settings(
    max_examples=300 if THOROUGH else 20,
    derandomize=not THOROUGH,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
PURE = settings(PROFILE, max_examples=5000 if THOROUGH else 500)
GROUPS_AT_ONCE = 1_000_000
MOST_BYTES = 50_000_000

sizes = st.builds(
    lambda target, more, keys: ChunkSize(target_rows=target, max_rows=target + more, max_keys=keys),
    st.integers(1, 12),
    st.integers(0, 12),
    st.none() | st.integers(1, 5),
)
# Mostly small groups, now and then one above every maximum.
group_rows = st.integers(1, 4) | st.integers(1, 4) | st.integers(1, 30)


@PURE
@given(st.lists(st.tuples(group_rows, st.booleans()), max_size=40), sizes, st.booleans())
def test_the_cutter_cuts_between_groups_and_covers_everything(
    groups: list[tuple[int, bool]], size: ChunkSize, nullable: bool
) -> None:
    keyed = [([str(n)], nullable and is_null, rows) for n, (rows, is_null) in enumerate(groups)]
    cuts = list(Cutter(size, nullable=nullable).cut(keyed))
    plain, nulls = [cut for cut in cuts if not cut.is_null], [cut for cut in cuts if cut.is_null]
    assert len(nulls) == (1 if nullable and groups else 0)
    assert sum(cut.rows for cut in cuts) == sum(rows for rows, _ in groups)
    assert sum(cut.groups for cut in cuts) == len(groups)
    assert_ranges_meet(plain)
    present = [(int(key[0]), rows) for key, is_null, rows in keyed if not is_null]
    for place, cut in enumerate(plain):
        inside = [rows for n, rows in present if is_inside(n, cut)]
        assert (sum(inside), len(inside)) == (cut.rows, cut.groups)
        assert_size(cut, size, is_last=place == len(plain) - 1, next_rows=first_rows_after(present, cut))


def is_inside(n: int, cut: Cut) -> bool:
    return (cut.lo is None or n > int(cut.lo[0])) and (cut.hi is None or n <= int(cut.hi[0]))


def first_rows_after(present: Sequence[tuple[int, int]], cut: Cut) -> int:
    return next((rows for n, rows in present if cut.hi is not None and n > int(cut.hi[0])), 0)


def assert_ranges_meet(plain: Sequence[Cut]) -> None:
    """I1: each range ends where the next one starts; the first and the last end are open."""
    for before, after in itertools.pairwise(plain):
        assert before.hi is not None and before.hi == after.lo
    if plain:
        assert plain[0].lo is None and plain[-1].hi is None


def assert_size(cut: Cut, size: ChunkSize, *, is_last: bool, next_rows: int) -> None:
    """At most max_rows and max_keys, but for a group that is larger alone; and not smaller than there was need to."""
    assert cut.groups >= 1
    assert cut.oversized == (cut.rows > size.max_rows)
    assert cut.groups == 1 or cut.rows <= size.max_rows
    assert size.max_keys is None or cut.groups <= size.max_keys
    full = cut.rows >= size.target_rows or cut.groups == size.max_keys or cut.rows + next_rows > size.max_rows
    assert is_last or full


def test_the_cutter_holds_one_chunk_in_memory() -> None:
    tracemalloc.start()
    groups = (([str(n)], False, 1) for n in range(200_000))
    count = sum(1 for _ in Cutter(ChunkSize(target_rows=10, max_rows=10), nullable=False).cut(groups))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000 and peak < 1_000_000


@dataclass(frozen=True)
class Keys:
    """Key columns of a table: their definitions, and values as texts that the database casts."""

    name: str
    columns: tuple[str, ...]
    values: tuple[st.SearchStrategy[str | None], ...]


def some(*values: str | None) -> st.SearchStrategy[str | None]:
    return st.sampled_from(values)


def short(word: str | None) -> str | None:
    return word and word[:4]


DATES = some("2025-01-01", "2025-01-02", "1999-12-31", "0044-03-15 BC", "infinity", "-infinity", None)
LETTERS = some("a", "B", "b", "A", "aa", "Zebra", "zebra", "Ärger", "é", "", " ", "a b", "a-b", "_", "100%", "'", "{")
WORDS = LETTERS | st.none()
NUMBERS = st.integers(-3, 3).map(str) | some("-9223372036854775808", "9223372036854775807")
KEYS = [
    Keys("date and text", ("date", "text"), (DATES, WORDS)),
    Keys("bigint", ("bigint NOT NULL",), (NUMBERS,)),
    Keys("nullable bigint and bigint", ("bigint", "bigint"), (NUMBERS | st.none(), NUMBERS)),
    Keys("uuid", ("uuid",), (st.uuids().map(str) | some("00000000-0000-0000-0000-000000000000", None),)),
    Keys("text, collation C", ('text COLLATE "C" NOT NULL',), (LETTERS,)),
    Keys("text, default collation", ("text",), (WORDS,)),
    Keys("text in three collations", ('text COLLATE "POSIX"', 'text COLLATE "C"', "text"), (WORDS, WORDS, WORDS)),
    Keys("numeric", ("numeric",), (some("NaN", "Infinity", "-Infinity", "-0.10", "-0.1", "0", "1e20", "1.000", None),)),
    Keys("numeric(6,2)", ("numeric(6,2)", "real"), (some("NaN", "-1.05", "1.10"), some("NaN", "-0", "0", "0.1"))),
    Keys(
        "timestamptz", ("timestamptz",),
        (some("infinity", "-infinity", "2025-10-26 00:30+00", "2025-10-26 00:30+02", "1883-11-18 12:00+00",
              "2025-01-01 00:00:00.000001+00", "0044-03-15 00:00+00 BC", None),),
    ),
    Keys("boolean and date", ("boolean", "date"), (some("true", "false", None), DATES)),
    Keys("enum", ("public.\"Mood %%\"",), (some("sad", "ok", "Happy 100%", None),)),
    Keys("char(n)", ("char(3)", 'varchar(4) COLLATE "C"'), (some("a", "a  ", "ab", "B", "", None), WORDS.map(short))),
    Keys("interval", ("interval", "bytea"), (some("1 mon", "30 days", "-1 day", None), some("\\x00", "\\xff"))),
]  # fmt: skip


class Table:
    """A database with one table at a time, its key columns called Key 1, Key 2, … in capitals and with a blank."""

    def __init__(self, dsn: str, folder: Path) -> None:
        self.folder = folder
        self.database = Postgres(lambda force: facts_of(dsn))
        self.session = psycopg2.connect(dsn)
        self.session.autocommit = True
        self.cursor = self.session.cursor()
        self.cursor.execute("CREATE TYPE public.\"Mood %\" AS ENUM ('sad', 'ok', 'Happy 100%')")

    def close(self) -> None:
        self.database.close()
        self.session.close()

    def create(self, keys: Keys) -> None:
        columns = ", ".join(f'"Key {n}" {column}' for n, column in enumerate(keys.columns, start=1)).replace("%%", "%")
        self.cursor.execute("DROP TABLE IF EXISTS public.keyed")
        self.cursor.execute(
            f'CREATE TABLE public.keyed ("ID" bigserial, {columns}, n int, flag smallint, stamp timestamptz)'
        )

    def fill(self, keys: Keys, rows: Sequence[tuple[str | None, ...]]) -> None:
        names = ", ".join(f'"Key {n}"' for n, _ in enumerate(keys.columns, start=1))
        casts = ", ".join(f"%s::{column.removesuffix(' NOT NULL')}" for column in keys.columns)
        self.cursor.execute("TRUNCATE public.keyed")
        execute_values(self.cursor, f"INSERT INTO public.keyed ({names}) VALUES %s", rows, template=f"({casts})")

    def job(self, keys: Keys, size: ChunkSize) -> Job:
        columns = ", ".join(f"Key {n}" for n, _ in enumerate(keys.columns, start=1))
        limits = f"target_rows: {size.target_rows}, max_rows: {size.max_rows}"
        limits += f", max_keys: {size.max_keys}" if size.max_keys else ""
        (self.folder / "set.sql").write_text("SELECT chunk.row_id, 1 AS n FROM chunk")
        (self.folder / "demo.job.yaml").write_text(
            "{job: demo, connections: {target: {secret: s}}, steps: [{name: set, kind: update, file: set.sql, "
            f"target: public.keyed, key: [{columns}], flag: flag, stamp: stamp, chunk: {{{limits}}}}}]}}"
        )
        return read_job(self.folder / "demo.job.yaml")

    def plan(self, job: Job) -> tuple[Context, int]:
        """A new run with its first wave planned."""
        context = Context(job, self.database)
        self.cursor.execute("SELECT to_regclass('sluice.run') IS NOT NULL")
        if self.cursor.fetchall() == [(True,)]:
            self.cursor.execute("DELETE FROM sluice.run")
        run_id = open_run(context, "one", {}).run.run_id
        plan_round(context, run_id)
        return context, run_id


@pytest.fixture(scope="module")
def table(postgres: Server, template_database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    table = Table(postgres.create_database("planner", template=template_database), tmp_path_factory.mktemp("demo"))
    yield table
    table.close()
    postgres.drop_database("planner")


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: keys.name)
def test_i1_i2_every_row_lies_in_exactly_one_chunk(table: Table, keys: Keys) -> None:
    table.create(keys)
    groups = st.lists(st.tuples(st.tuples(*keys.values), group_rows), max_size=25)

    @PROFILE
    @given(groups, sizes)
    def check(groups: list[tuple[tuple[str | None, ...], int]], size: ChunkSize) -> None:
        rows = [key for key, count in groups for _ in range(count)]
        if rows:
            table.fill(keys, rows)
            assert_partition(*table.plan(table.job(keys, size)), size, len(rows))

    check()


def assert_partition(context: Context, run_id: int, size: ChunkSize, rows: int) -> None:
    """By the engine's own conditions: each row in one chunk, whole groups, sizes as asked for and as noted."""
    spec = context.job.step("set")
    assert isinstance(spec, UpdateStep)
    with context.transaction() as transaction:
        ledger = Ledger(transaction)
        run = ledger.run(run_id)
        assert ledger.rows("broken_invariants", run_id=run_id) == [], "I1"
        statements = update_sql(context, transaction, spec, run)
        chunk_of: dict[str, int] = {}
        chunks = transaction.rows("SELECT * FROM sluice.chunk WHERE run_id = :run_id", {"run_id": run_id})
        for chunk in chunks:
            bounds = Bounds(chunk.lo, chunk.hi, chunk.is_null)
            values = {**run_values(run), **bounds.values()}
            count = transaction.row(statements.statement("count_todo", bounds), values).n
            found = transaction.row(statements.statement("lock_rows", bounds), values).addresses or "{}"
            addresses = found.strip("{}").replace('"', "").replace("),(", ");(").split(";") if count else []
            assert count == len(addresses) == chunk.est_rows
            assert not set(addresses) & set(chunk_of), "I2: a row lies in two chunks"
            chunk_of.update(dict.fromkeys(addresses, chunk.chunk_no))
        assert len(chunk_of) == rows, "I2: a row lies in no chunk"
        names = ", ".join(f'"{name}"' for name in spec.key)
        groups = transaction.rows(f"SELECT array_agg(ctid::text) AS addresses FROM public.keyed GROUP BY {names}")
    counts = Counter(
        (chunk_no, len(group.addresses)) for group in groups for chunk_no in {chunk_of[tid] for tid in group.addresses}
    )
    assert sum(counts.values()) == len(groups), "I2: a group lies in two chunks"
    for chunk in chunks:
        inside = {n: times for (chunk_no, n), times in counts.items() if chunk_no == chunk.chunk_no}
        assert sum(inside.values()) == chunk.groups
        if not chunk.is_null:
            assert chunk.est_rows <= size.max_rows or chunk.groups == 1
            assert chunk.groups <= (size.max_keys or chunk.groups)


def test_a_plan_of_many_groups_needs_little_memory(table: Table) -> None:
    """A million groups in one pass."""
    keys = Keys("many", ("bigint NOT NULL", "text NOT NULL"), ())
    table.create(keys)
    table.cursor.execute(
        'INSERT INTO public.keyed ("Key 1", "Key 2") SELECT n %% 1000, n::text FROM generate_series(1, %s) AS n',
        (GROUPS_AT_ONCE,),
    )
    table.cursor.execute('CREATE INDEX ON public.keyed ("Key 1", "Key 2"); ANALYZE public.keyed')
    job = table.job(keys, ChunkSize(target_rows=50, max_rows=50))
    tracemalloc.start()
    _, run_id = table.plan(job)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    table.cursor.execute("SELECT count(*), sum(groups), sum(est_rows) FROM sluice.chunk WHERE run_id = %s", (run_id,))
    assert table.cursor.fetchall() == [(GROUPS_AT_ONCE // 50, GROUPS_AT_ONCE, GROUPS_AT_ONCE)]
    assert peak < MOST_BYTES
