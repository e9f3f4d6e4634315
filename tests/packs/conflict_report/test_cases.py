"""Each rule of the report by a case made for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest
from psycopg2.extensions import cursor as Cursor

from tests.packs.conflict_report import harness, oracle
from tests.packs.conflict_report.world import (
    ANNA,
    ANTIPODE,
    BERT,
    HOME,
    KIRITIMATI,
    LOS_ANGELES,
    MISTYPED,
    NAMELESS,
    TEN_MILES_AWAY,
    Leave,
    Session,
    Visit,
    World,
    at,
    span,
)

Solve = Callable[..., dict[int, dict[str, Any]]]
MORNING = span("2025-02-03 08:00", "2025-02-03 10:00")
LATER = span("2025-02-03 09:00", "2025-02-03 11:00")


@pytest.fixture
def solve(cursor: Cursor) -> Solve:
    """The computed columns by VisitID, after they proved equal to the oracle's and to the checks'."""

    def run(*visits: Visit, mph: float = 30, window: int = 120, **more: Any) -> dict[int, dict[str, Any]]:
        world = World(visits, **more)
        world.write(cursor)
        harness.copy_to_temp(cursor)
        found = harness.compute(cursor, travel_mph=mph, travel_window_minutes=window)
        rows = harness.by_visit(cursor, found)
        assert rows == {visit.VisitID: oracle.expect(world, visit, mph, window) for visit in visits}
        if (mph, window) == (30, 120):
            assert harness.update(cursor) == len(visits)
            assert harness.check(cursor) == {}
        return rows

    return run


def test_a_lone_visit_is_clear(solve: Solve) -> None:
    rows = solve(Visit(1, ANNA[0], MORNING), Visit(2, BERT[0], MORNING))
    assert [row["ConflictStatus"] for row in rows.values()] == ["clear", "clear"]


def test_schedules_overlap(solve: Solve) -> None:
    rows = solve(Visit(1, ANNA[0], MORNING), Visit(2, ANNA[2], LATER))
    assert (rows[1]["ConVisitID"], rows[2]["ConVisitID"]) == (2, 1)
    assert rows[1]["ConflictType"] == "schedules_overlap"
    assert (rows[1]["OverlapMinutes"], rows[1]["SchOverlapMinutes"], rows[1]["VisitOverlapMinutes"]) == (60, 60, None)


def test_overlap_across_midnight_and_visit_dates(solve: Solve) -> None:
    """One instant, three dates: where the visit starts it is the 4th, the 3rd, and in Kiritimati already the 5th."""
    night = Visit(1, ANNA[0], span("2025-02-03 23:30", "2025-02-04 03:30"))
    west = Visit(2, ANNA[1], span("2025-02-03 23:45", "2025-02-04 00:15", LOS_ANGELES))
    east = Visit(3, ANNA[3], span("2025-02-04 18:00", "2025-02-04 23:00", KIRITIMATI))
    rows = solve(night, west, east)
    world = World((night, west, east))
    assert [world.visit_date(v) for v in world.visits] == [date(2025, 2, 3), date(2025, 2, 3), date(2025, 2, 4)]
    assert rows[2]["ConVisitID"] == 1
    assert rows[2]["OverlapMinutes"] == 30
    assert rows[3]["ConVisitID"] == 1


def test_the_hour_that_does_not_exist_is_not_counted(solve: Solve) -> None:
    """From 1:30 to 3:30 on the night to daylight saving is one hour."""
    rows = solve(
        Visit(1, ANNA[0], span("2025-03-09 01:30", "2025-03-09 03:30")),
        Visit(2, ANNA[2], span("2025-03-09 00:00", "2025-03-09 06:00")),
    )
    assert rows[1]["OverlapMinutes"] == 60


def test_the_hour_that_comes_twice_is_two_hours(solve: Solve) -> None:
    first = at("2025-11-02 01:00"), at("2025-11-02 01:45")
    second = at("2025-11-02 01:00", fold=1), at("2025-11-02 01:45", fold=1)
    rows = solve(Visit(1, ANNA[0], first), Visit(2, ANNA[2], second))
    assert rows[1]["ConflictStatus"] == "clear"


def test_touching_visits_at_one_place_are_clear(solve: Solve) -> None:
    rows = solve(Visit(1, ANNA[0], MORNING), Visit(2, ANNA[2], span("2025-02-03 10:00", "2025-02-03 11:00")))
    assert rows[1]["ConflictStatus"] == "clear"


def test_touching_visits_at_two_places_leave_no_time_to_travel(solve: Solve) -> None:
    after = Visit(2, ANNA[2], span("2025-02-03 10:00", "2025-02-03 11:00"), place=TEN_MILES_AWAY)
    rows = solve(Visit(1, ANNA[0], MORNING), after)
    assert rows[1]["ConflictType"] == rows[2]["ConflictType"] == "travel_time"
    assert (rows[1]["MinuteDiff"], rows[1]["Distance"], rows[1]["TravelMinutes"]) == (0, 10.0, 20)


@pytest.mark.parametrize(("minutes", "status"), [(19, "conflict"), (20, "clear"), (21, "clear")])
def test_travel_fits_into_the_gap_or_not(solve: Solve, minutes: int, status: str) -> None:
    start = at("2025-02-03 10:00") + timedelta(minutes=minutes)
    after = Visit(2, ANNA[2], (start, start + timedelta(hours=1)), place=TEN_MILES_AWAY)
    assert solve(Visit(1, ANNA[0], MORNING), after)[1]["ConflictStatus"] == status


def test_travel_is_checked_within_the_window_of_times_present(solve: Solve) -> None:
    """Who left early had time, though plan and next visit are close."""
    early = Visit(1, ANNA[0], MORNING, span("2025-02-03 08:00", "2025-02-03 08:30"))
    after = Visit(2, ANNA[2], span("2025-02-03 10:10", "2025-02-03 11:00"), place=ANTIPODE)
    assert solve(early, after, window=100)[1]["ConflictStatus"] == "clear"
    assert solve(early, after, window=101)[1]["MinuteDiff"] == 100


def test_the_other_side_of_the_world_is_a_distance(solve: Solve) -> None:
    after = Visit(2, ANNA[2], span("2025-02-03 10:00", "2025-02-03 11:00"), place=ANTIPODE)
    assert solve(Visit(1, ANNA[0], MORNING, place=HOME), after)[1]["Distance"] == pytest.approx(12437, abs=1)


def test_without_coordinates_no_travel_time(solve: Solve) -> None:
    after = Visit(2, ANNA[2], span("2025-02-03 10:00", "2025-02-03 11:00"), place=None)
    assert solve(Visit(1, ANNA[0], MORNING), after)[1]["ConflictStatus"] == "clear"
    rows = solve(Visit(1, ANNA[0], MORNING), replace(after, sch=LATER))
    assert (rows[1]["ConflictStatus"], rows[1]["Distance"]) == ("conflict", None)


def test_identical_visits(solve: Solve) -> None:
    rows = solve(Visit(1, ANNA[0], MORNING, MORNING), Visit(2, ANNA[2], MORNING, MORNING))
    assert rows[1]["ConflictType"] == "same_visit_time"
    flags = ("SameSchTimeFlag", "SameVisitTimeFlag", "SchAndVisitTimeSameFlag")
    over = ("SchOverAnotherSchTimeFlag", "VisitTimeOverAnotherVisitTimeFlag", "SchTimeOverVisitTimeFlag")
    assert [rows[1][name] for name in flags + over] == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        ((MORNING, LATER), (LATER, LATER), "same_visit_time"),
        ((MORNING, LATER), (MORNING, MORNING), "visit_times_overlap"),
        ((MORNING, (None, None)), (LATER, MORNING), "schedule_is_visit_time"),
        ((MORNING, (None, None)), (span("2025-02-03 10:00", "2025-02-03 11:00"), LATER), "schedule_over_visit_time"),
        ((MORNING, (None, None)), (MORNING, (None, None)), "same_schedule"),
        ((MORNING, (at("2025-02-03 08:00"), None)), (LATER, (None, None)), "schedules_overlap"),
        (((None, None), MORNING), (MORNING, (None, None)), "schedule_is_visit_time"),
    ],
)
def test_kinds_of_conflict(solve: Solve, own: Any, other: Any, expected: str) -> None:
    rows = solve(Visit(1, ANNA[0], *own), Visit(2, ANNA[2], *other))
    assert rows[2]["ConflictType"] == expected


def test_the_worst_conflict_is_chosen(solve: Solve) -> None:
    """Really at two places is worse than so planned, another agency than the own, long than short, then the first."""
    rows = solve(
        Visit(1, ANNA[0], MORNING, MORNING),
        Visit(2, ANNA[2], MORNING),
        Visit(3, ANNA[0], LATER, span("2025-02-03 09:50", "2025-02-03 11:00")),
    )
    assert (rows[1]["ConVisitID"], rows[1]["ConflictCount"], rows[1]["OtherProviderConflictCount"]) == (3, 2, 1)
    rows = solve(
        Visit(1, ANNA[0], MORNING),
        Visit(2, ANNA[0], span("2025-02-03 08:00", "2025-02-03 09:59")),
        Visit(3, ANNA[1], LATER),
    )
    assert (rows[1]["ConVisitID"], rows[1]["SameProviderFlag"]) == (3, False)
    rows = solve(
        Visit(5, ANNA[0], MORNING),
        Visit(9, ANNA[2], span("2025-02-03 08:30", "2025-02-03 10:30")),
        Visit(7, ANNA[2], LATER),
        Visit(6, ANNA[2], span("2025-02-03 07:30", "2025-02-03 09:30")),
    )
    assert rows[5]["ConVisitID"] == 6


def test_the_same_provider_conflicts_too(solve: Solve) -> None:
    rows = solve(Visit(1, ANNA[0], MORNING), Visit(2, ANNA[0], LATER))
    assert (rows[1]["ConVisitID"], rows[1]["SameProviderFlag"]) == (2, True)


@pytest.mark.parametrize("nobody", [NAMELESS, MISTYPED])
def test_without_a_valid_ssn_nothing_can_be_established(solve: Solve, nobody: Any) -> None:
    rows = solve(Visit(1, nobody[0], MORNING), Visit(2, nobody[2], MORNING), Visit(3, ANNA[0], MORNING))
    assert [rows[n]["ConflictStatus"] for n in (1, 2, 3)] == ["undetermined", "undetermined", "clear"]
    assert rows[1]["SameSchTimeFlag"] is False


def test_without_a_date_nothing_can_be_established_but_others_see_the_visit(solve: Solve) -> None:
    rows = solve(Visit(1, ANNA[0], MORNING), Visit(2, ANNA[2], LATER), without_date=frozenset({1}))
    assert (rows[1]["ConflictStatus"], rows[1]["ConVisitID"]) == ("undetermined", None)
    assert rows[2]["ConVisitID"] == 1


def test_times_out_of_order_are_no_times(solve: Solve) -> None:
    backwards = Visit(1, ANNA[0], (MORNING[1], MORNING[0]))
    rows = solve(backwards, Visit(2, ANNA[2], MORNING))
    assert [rows[n]["ConflictStatus"] for n in (1, 2)] == ["undetermined", "clear"]
    rows = solve(replace(backwards, actual=LATER), Visit(2, ANNA[2], MORNING, (LATER[1], LATER[0])))
    assert rows[1]["ConflictType"] == rows[2]["ConflictType"] == "schedule_over_visit_time"


def test_a_missed_visit_keeps_nobody_busy(solve: Solve) -> None:
    rows = solve(Visit(1, ANNA[0], MORNING), Visit(2, ANNA[2], LATER, missed=True))
    assert rows[1]["ConflictStatus"] == "clear"


def test_a_visit_of_many_days_meets_each_visit_once(solve: Solve) -> None:
    forgotten = Visit(1, ANNA[0], MORNING, (MORNING[0], MORNING[0] + timedelta(days=40)))
    others = [Visit(10 + n, ANNA[2], (LATER[0] + timedelta(days=n), LATER[1] + timedelta(days=n + 2)))
              for n in range(0, 38, 3)]  # fmt: skip
    rows = solve(forgotten, *others)
    assert rows[1]["ConflictCount"] == len(others)


def test_training_during_a_visit(solve: Solve) -> None:
    sessions = [
        Session(8, ANNA[2], at("2025-02-03 09:30"), at("2025-02-03 12:00")),
        Session(7, ANNA[0], at("2025-02-03 07:00"), at("2025-02-03 08:15")),
        Session(6, ANNA[0], at("2025-02-03 10:00"), at("2025-02-03 12:00")),
        Session(5, BERT[0], *MORNING),
    ]
    rows = solve(Visit(1, ANNA[0], MORNING), sessions=sessions)
    assert (rows[1]["ConflictType"], rows[1]["InServiceID"], rows[1]["InServiceOverlapMinutes"]) == (
        "in_service",
        7,
        45,
    )
    assert (rows[1]["ConflictCount"], rows[1]["ConVisitID"], rows[1]["Distance"]) == (0, None, None)


def test_leave_is_whole_days_of_the_agency_that_granted_it(solve: Solve) -> None:
    """In Los Angeles the 9th of March, the day of 23 hours, ends at 3 in the morning of the 10th in New York."""
    leaves = [Leave(4, ANNA[1], date(2025, 3, 9), date(2025, 3, 9))]
    rows = solve(
        Visit(1, ANNA[0], span("2025-03-10 02:00", "2025-03-10 02:30")),
        Visit(2, ANNA[0], span("2025-03-10 03:00", "2025-03-10 03:30")),
        Visit(3, ANNA[0], span("2025-03-09 01:00", "2025-03-09 01:59")),
        leaves=leaves,
    )
    assert [rows[n]["PTOFlag"] for n in (1, 2, 3)] == [True, False, False]
    assert (rows[1]["ConflictType"], rows[1]["LeaveID"]) == ("leave", 4)


def test_an_absence_stands_beside_a_conflicting_visit(solve: Solve) -> None:
    rows = solve(
        Visit(1, ANNA[0], MORNING),
        Visit(2, ANNA[2], LATER),
        sessions=[Session(3, ANNA[0], *MORNING)],
        leaves=[Leave(4, ANNA[0], date(2025, 2, 3), date(2025, 2, 4))],
    )
    assert (rows[1]["ConflictType"], rows[1]["InServiceID"], rows[1]["LeaveID"]) == ("schedules_overlap", 3, 4)


def test_a_work_table_without_visits_proves_a_visit_clear(solve: Solve) -> None:
    assert solve(Visit(1, ANNA[0], MORNING, missed=True))[1]["ConflictStatus"] == "clear"


def test_an_empty_work_table_proves_nothing(cursor: Cursor) -> None:
    """PostgreSQL empties an unlogged table in the recovery from a crash."""
    World([Visit(1, ANNA[0], MORNING), Visit(2, ANNA[2], LATER)]).write(cursor)
    assert {row["ConflictStatus"] for row in harness.compute(cursor)} == {"undetermined"}
    harness.update(cursor)
    assert "work_table_is_of_this_run" in harness.check(cursor)
