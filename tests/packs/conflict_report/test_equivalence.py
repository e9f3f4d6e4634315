"""Monolith, chunks and the oracle find the same, whatever the data and however it is cut."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import psycopg2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg2.extensions import cursor as Cursor

from tests.packs.conflict_report import harness, oracle
from tests.packs.conflict_report.conftest import GENERATED_ROWS
from tests.packs.conflict_report.world import (
    CAREGIVERS,
    HOME,
    TEN_MILES_AWAY,
    Leave,
    Session,
    Visit,
    World,
    read_world,
)

# The clocks go forward in New York at 7:00 and in Los Angeles at 10:00 of this day, in UTC.
CLOCKS_CHANGE = datetime(2025, 3, 9, tzinfo=UTC)
MOMENTS = st.integers(-8, 56).map(lambda n: CLOCKS_CHANGE + timedelta(minutes=45 * n))
TIMES = st.tuples(st.none() | MOMENTS, MOMENTS) | st.tuples(MOMENTS, st.integers(1, 80)).map(
    lambda pair: (pair[0], pair[0] + timedelta(minutes=45 * pair[1]))
)
DAYS = st.integers(7, 11).map(lambda day: date(2025, 3, day))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    visits = [
        Visit(
            number,
            draw(st.sampled_from(CAREGIVERS)),
            draw(TIMES),
            draw(TIMES | st.just((None, None))),
            draw(st.sampled_from([HOME, TEN_MILES_AWAY, None])),
            draw(st.integers(0, 9)) == 0,
        )
        for number in range(1, draw(st.integers(2, 14)))
    ]
    sessions = [
        Session(number, draw(st.sampled_from(CAREGIVERS)), start, start + timedelta(minutes=100))
        for number, start in enumerate(draw(st.lists(MOMENTS, max_size=3)))
    ]
    leaves = [
        Leave(number, draw(st.sampled_from(CAREGIVERS)), *sorted([draw(DAYS), draw(DAYS)]))
        for number in range(draw(st.integers(0, 2)))
    ]
    return World(visits, sessions, leaves, frozenset(draw(st.lists(st.integers(1, 14), max_size=2))))


def random_chunks(cursor: Cursor, seed: int) -> list[list[str]]:
    """All addresses of the table, shuffled and cut at random places."""
    cursor.execute("SELECT ctid::text FROM public.conflictvisitmaps ORDER BY ctid")
    addresses = [address for (address,) in cursor.fetchall()]
    random = Random(seed)
    random.shuffle(addresses)
    cuts = sorted(random.sample(range(len(addresses)), min(9, len(addresses) - 1)))
    return [addresses[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]


def ordered(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: row["row_id"])


@pytest.mark.parametrize(("seed", "zone"), [(1, "UTC"), (2, "Pacific/Kiritimati"), (3, "America/Los_Angeles")])
def test_chunks_find_what_the_monolith_finds(generated: Cursor, seed: int, zone: str) -> None:
    harness.copy_to_temp(generated)
    monolith = harness.compute(generated)
    assert len(monolith) == GENERATED_ROWS
    generated.execute("SET LOCAL timezone TO %s", (zone,))
    harness.copy_to_temp(generated)
    chunks = [row for part in random_chunks(generated, seed) for row in harness.compute(generated, part)]
    assert ordered(chunks) == ordered(monolith)


def test_the_monolith_finds_what_the_oracle_finds(generated: Cursor) -> None:
    harness.copy_to_temp(generated)
    world = read_world(generated)
    visits = {visit.VisitID: visit for visit in world.visits}
    rows = harness.by_visit(generated, harness.compute(generated))
    expected = {number: oracle.expect(world, visits[number]) for number in rows}
    assert rows == expected
    assert {*oracle.REASONS, None} == {row["ConflictType"] for row in rows.values()}


def test_later_dates_need_no_earlier_ones(generated: Cursor) -> None:
    """What step 01 leaves out before :since changes no row from :since on."""
    since = "2025-03-09"
    harness.copy_to_temp(generated)
    generated.execute('SELECT "VisitID" FROM conflictvisitmaps WHERE "VisitDate" >= %s', (since,))
    eligible = {visit for (visit,) in generated.fetchall()}
    everything = harness.by_visit(generated, harness.compute(generated))
    harness.copy_to_temp(generated, since=since)
    later = harness.by_visit(generated, harness.compute(generated))
    assert eligible
    assert {n: later[n] for n in eligible} == {n: everything[n] for n in eligible}
    assert later != everything


def test_chunks_may_be_worked_in_any_order_and_again(generated: Cursor) -> None:
    """The update writes nothing that the SELECT reads."""
    harness.copy_to_temp(generated)
    before = harness.compute(generated)
    generated.execute('SELECT array_agg(ctid::text) FROM public.conflictvisitmaps WHERE "ID" % 3 = 0')
    (third,) = generated.fetchone()
    assert harness.update(generated, third) == len(third)
    assert harness.update(generated) == GENERATED_ROWS
    results = [sorted(map(repr, map(without_address, rows))) for rows in (before, harness.compute(generated))]
    assert results[0] == results[1]
    assert harness.check(generated) == {}


def without_address(row: dict[str, Any]) -> list[Any]:
    return [value for name, value in row.items() if name != "row_id"]


def test_any_world(database: str) -> None:
    """Monolith, chunks, oracle and the checks agree on whatever hypothesis comes up with."""
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        harness.create_tables(cursor)
        connection.commit()

        @settings(max_examples=150, deadline=None, database=None, derandomize=True)
        @given(worlds(), st.integers(0, 5))
        def holds(world: World, seed: int) -> None:
            try:
                world.write(cursor)
                harness.copy_to_temp(cursor)
                monolith = harness.compute(cursor)
                chunks = [row for part in random_chunks(cursor, seed) for row in harness.compute(cursor, part)]
                assert ordered(chunks) == ordered(monolith)
                rows = harness.by_visit(cursor, monolith)
                assert rows == {visit.VisitID: oracle.expect(world, visit) for visit in world.visits}
                assert harness.update(cursor) == len(world.visits)
                assert harness.check(cursor) == {}
            finally:
                connection.rollback()

        holds()
