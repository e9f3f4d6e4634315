"""The checks of 03_expect.sql find what they are for, and nothing on good data."""

from __future__ import annotations

import pytest
from psycopg2.extensions import cursor as Cursor

from tests.packs.conflict_report import harness
from tests.packs.conflict_report.conftest import GENERATED_ROWS

# A row of generated data by what it has, so that each column can be spoiled where it holds something.
SOME_ROW = 'SELECT min("ID") FROM conflictvisitmaps WHERE {}'
SPOILED = {
    "ConflictStatus": ("\"ConflictStatus\" = 'clear'", "'undetermined'"),
    "ConflictType": ("\"ConflictType\" = 'visit_times_overlap'", "'same_visit_time'"),
    "ConflictCount": ('"ConflictCount" > 1', '"ConflictCount" - 1'),
    "OtherProviderConflictCount": ('"OtherProviderConflictCount" > 0', "0"),
    "ConVisitID": ('"ConflictCount" > 1', '"VisitID"'),
    "ConProviderID": ('"ConVisitID" IS NOT NULL', '"ConProviderID" + 1'),
    "ConCaregiverID": ('"ConVisitID" IS NOT NULL', "NULL"),
    "ConPatientID": ('"ConVisitID" IS NOT NULL', "0"),
    "ConSchStartTime": ('"ConSchStartTime" IS NOT NULL', "\"ConSchStartTime\" + interval '1 hour'"),
    "ConSchEndTime": ('"ConSchEndTime" IS NOT NULL', "\"ConSchEndTime\" + interval '1 second'"),
    "ConVisitStartTime": ('"ConVisitStartTime" IS NOT NULL', '"ConSchStartTime"'),
    "ConVisitEndTime": ('"ConVisitEndTime" IS NOT NULL', "NULL"),
    "SameProviderFlag": ('"SameProviderFlag"', "false"),
    "SameSchTimeFlag": ('"SameSchTimeFlag"', "false"),
    "SchOverAnotherSchTimeFlag": ('"SchOverAnotherSchTimeFlag"', "NULL"),
    "SameVisitTimeFlag": ('"SameVisitTimeFlag"', "false"),
    "VisitTimeOverAnotherVisitTimeFlag": ('"VisitTimeOverAnotherVisitTimeFlag"', "false"),
    "SchAndVisitTimeSameFlag": ('NOT "SchAndVisitTimeSameFlag"', "true"),
    "SchTimeOverVisitTimeFlag": ('"SchTimeOverVisitTimeFlag"', "false"),
    "SchOverlapMinutes": ('"SchOverlapMinutes" > 1', '"SchOverlapMinutes" - 1'),
    "VisitOverlapMinutes": ('"VisitOverlapMinutes" > 1', "NULL"),
    "OverlapMinutes": ('"OverlapMinutes" > 1', '"OverlapMinutes" + 1'),
    "Distance": ('"Distance" > 0', '"Distance" / 2'),
    "MinuteDiff": ('"MinuteDiff" > 0', '"MinuteDiff" + 1'),
    "TravelMinutes": ('"TravelMinutes" > 0', "0"),
    "DistanceFlag": ('"DistanceFlag"', "false"),
    "InServiceFlag": ('"InServiceFlag"', "false"),
    "InServiceID": ('"InServiceID" IS NOT NULL', '"InServiceID" + 1'),
    "InServiceOverlapMinutes": ('"InServiceFlag"', "NULL"),
    "PTOFlag": ('"PTOFlag"', "false"),
    "LeaveID": ('"LeaveID" IS NOT NULL', '"LeaveID" + 1'),
}


@pytest.fixture
def updated(generated: Cursor) -> Cursor:
    harness.copy_to_temp(generated)
    assert harness.update(generated) == GENERATED_ROWS
    return generated


def test_good_data_passes(updated: Cursor) -> None:
    assert harness.check(updated) == {}


def test_every_computed_column_is_checked(updated: Cursor) -> None:
    assert list(SPOILED) == harness.columns(updated)


@pytest.mark.parametrize("column", SPOILED)
def test_a_spoiled_value_is_found(updated: Cursor, column: str) -> None:
    condition, value = SPOILED[column]
    updated.execute(SOME_ROW.format(condition))
    (row,) = updated.fetchone()
    assert row is not None
    updated.execute(f'UPDATE conflictvisitmaps SET "{column}" = {value} WHERE "ID" = %s', (row,))
    assert harness.check(updated)["stored_values_disagree"] == [row]


def test_a_claimed_row_is_found(updated: Cursor) -> None:
    updated.execute('UPDATE conflictvisitmaps SET "UpdateFlag" = 1 WHERE "ID" = 5')
    assert harness.check(updated) == {"no_flag_left": [5]}


@pytest.mark.parametrize(
    ("column", "value", "condition", "name"),
    [
        ("ConVisitID", '"VisitID"', '"ConVisitID" IS NOT NULL', "conflict_with_itself_or_a_stranger"),
        ("ConVisitID", "-1", '"ConVisitID" IS NOT NULL', "conflict_with_itself_or_a_stranger"),
        ("OverlapMinutes", "-1", "true", "minutes_out_of_range"),
        ("OverlapMinutes", "5000", "true", "minutes_out_of_range"),
        ("PTOFlag", "true", "\"ConflictStatus\" = 'clear'", "status_without_reason"),
        ("ConflictCount", "1", "\"ConflictStatus\" = 'clear'", "status_without_reason"),
    ],
)
def test_an_impossible_value_is_found(updated: Cursor, column: str, value: str, condition: str, name: str) -> None:
    updated.execute(SOME_ROW.format(condition))
    (row,) = updated.fetchone()
    updated.execute(f'UPDATE conflictvisitmaps SET "{column}" = {value} WHERE "ID" = %s', (row,))
    assert harness.check(updated)[name] == [row]


@pytest.mark.parametrize("day", ["min", "max"])
def test_a_day_missing_from_the_work_table_is_found(updated: Cursor, day: str) -> None:
    updated.execute('SELECT "BusyID" FROM conflictvisitmaps_temp WHERE "Kind" = \'leave\' AND "BusyDay" > "FirstDay"')
    (leave,) = updated.fetchone()
    updated.execute(
        f'DELETE FROM conflictvisitmaps_temp WHERE ("Kind", "BusyID") = (\'leave\', %s) AND "BusyDay" ='
        f' (SELECT {day}("BusyDay") FROM conflictvisitmaps_temp WHERE ("Kind", "BusyID") = (\'leave\', %s))',
        (leave, leave),
    )
    assert harness.check(updated)["work_table_skips_a_day"] == ["leave"]


def test_rows_that_the_application_changed_are_not_held_against_the_run(updated: Cursor) -> None:
    """A trigger notes the change; the engine's own UPDATE did not fire it."""
    updated.execute('SELECT count(*) FROM conflictvisitmaps WHERE "ModifiedDate" >= now()')
    assert updated.fetchone() == (0,)
    updated.execute('UPDATE conflictvisitmaps SET "SSN" = \'900-00-0001\' WHERE "ConflictCount" > 0')
    changed = updated.rowcount
    updated.execute('SELECT count(*) FROM conflictvisitmaps WHERE "ModifiedDate" >= now()')
    assert updated.fetchone() == (changed,)
    assert harness.check(updated) == {}


def test_a_source_changed_during_the_run_is_a_warning(updated: Cursor) -> None:
    updated.execute('SELECT min("BusyID"), max("BusyID") FROM conflictvisitmaps_temp WHERE "Kind" = \'visit\'')
    first, last = updated.fetchone()
    updated.execute('UPDATE visits SET "IsMissed" = true WHERE "VisitID" = %s', (first,))
    updated.execute('UPDATE visits SET "PatientID" = "PatientID" + 1 WHERE "VisitID" = %s', (last,))
    assert {name: sorted(keys) for name, keys in harness.check(updated).items()} == {
        "source_changed_since_copy": [first, last]
    }


def test_a_wrong_visit_date_is_a_warning(updated: Cursor) -> None:
    updated.execute('SELECT min("ID") FROM conflictvisitmaps WHERE "VisitDate" IS NOT NULL')
    (row,) = updated.fetchone()
    updated.execute('UPDATE conflictvisitmaps SET "VisitDate" = "VisitDate" + 1 WHERE "ID" = %s', (row,))
    assert harness.check(updated) == {"wrong_visit_date": [row]}
