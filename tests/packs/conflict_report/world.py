"""A small visits system: its rows as Python objects, written to a database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from zoneinfo import ZoneInfo

from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

NEW_YORK, LOS_ANGELES, KIRITIMATI = "America/New_York", "America/Los_Angeles", "Pacific/Kiritimati"
Times = tuple[datetime | None, datetime | None]
Place = tuple[float, float] | None

HOME: Place = (40.7100, -74.0100)
TEN_MILES_AWAY: Place = (40.8547, -74.0100)
ANTIPODE: Place = (-40.7100, 105.9900)


@dataclass(frozen=True)
class Provider:
    ProviderID: int
    TimeZone: str


@dataclass(frozen=True)
class Caregiver:
    CaregiverID: int
    ProviderID: int
    SSN: str | None
    zone: str


@dataclass(frozen=True)
class Visit:
    """A visit, and the conflict row of the same number that the application enters for it."""

    VisitID: int
    caregiver: Caregiver
    sch: Times
    actual: Times = (None, None)
    place: Place = HOME
    missed: bool = False
    patient: int | None = None

    @property
    def patient_id(self) -> int:
        return self.VisitID if self.patient is None else self.patient


@dataclass(frozen=True)
class Session:
    InServiceID: int
    caregiver: Caregiver
    StartTime: datetime
    EndTime: datetime


@dataclass(frozen=True)
class Leave:
    LeaveID: int
    caregiver: Caregiver
    StartDate: date
    EndDate: date


def employ(first: int, agency: Provider, ssn: str | None) -> Caregiver:
    return Caregiver(first + agency.ProviderID, agency.ProviderID, ssn, agency.TimeZone)


AGENCIES = (Provider(1, NEW_YORK), Provider(2, LOS_ANGELES), Provider(3, NEW_YORK), Provider(4, KIRITIMATI))
ANNA = tuple(employ(10, agency, "900-01-0001") for agency in AGENCIES)
BERT = tuple(employ(20, agency, "900-02-0002") for agency in AGENCIES)
NAMELESS = tuple(employ(30, agency, None) for agency in AGENCIES)
MISTYPED = tuple(employ(40, agency, "900020002") for agency in AGENCIES)
CAREGIVERS = (*ANNA, *BERT, *NAMELESS, *MISTYPED)


@dataclass(frozen=True)
class World:
    visits: Sequence[Visit]
    sessions: Sequence[Session] = ()
    leaves: Sequence[Leave] = ()
    without_date: frozenset[int] = frozenset()

    @cached_property
    def by_ssn(self) -> Mapping[str | None, Sequence[Visit]]:
        """The visits of each person."""
        persons: defaultdict[str | None, list[Visit]] = defaultdict(list)
        for visit in self.visits:
            persons[visit.caregiver.SSN].append(visit)
        return persons

    def visit_date(self, visit: Visit) -> date | None:
        """The date that the application enters for a visit."""
        if visit.sch[0] is None or visit.VisitID in self.without_date:
            return None
        return visit.sch[0].astimezone(ZoneInfo(visit.caregiver.zone)).date()

    def write(self, cursor: Cursor) -> None:
        """Replace what the database holds."""
        cursor.execute(
            "TRUNCATE public.providers, public.patients, public.caregivers, public.visits, public.inservices,"
            " public.leaves, public.conflictvisitmaps"
        )
        insert(cursor, "providers", ([p.ProviderID, f"Agency {p.ProviderID}", p.TimeZone] for p in AGENCIES))
        insert(cursor, "caregivers", ([c.CaregiverID, c.ProviderID, c.SSN] for c in CAREGIVERS))
        insert(
            cursor, "patients", ([v.VisitID, v.caregiver.ProviderID, *(v.place or (None, None))] for v in self.visits)
        )
        insert(
            cursor,
            "visits",
            (
                [v.VisitID, v.caregiver.ProviderID, v.caregiver.CaregiverID, v.VisitID, *v.sch, *v.actual, v.missed]
                for v in self.visits
            ),
        )
        insert(
            cursor,
            "inservices",
            ([s.InServiceID, s.caregiver.CaregiverID, s.StartTime, s.EndTime] for s in self.sessions),
        )
        insert(cursor, "leaves", ([v.LeaveID, v.caregiver.CaregiverID, v.StartDate, v.EndDate] for v in self.leaves))
        insert(cursor, "conflictvisitmaps", (self._conflict_row(visit) for visit in self.visits))

    def _conflict_row(self, visit: Visit) -> list[object]:
        c = visit.caregiver
        entered = datetime(2025, 1, 1, tzinfo=ZoneInfo("UTC"))
        return [
            visit.VisitID, visit.VisitID, self.visit_date(visit), c.SSN, c.ProviderID, c.CaregiverID, visit.VisitID,
            *(visit.place or (None, None)), *visit.sch, *visit.actual, entered,
        ]  # fmt: skip


def read_world(cursor: Cursor) -> World:
    """What the database holds; one person's rows by SSN, as the pack sees them."""
    cursor.execute(
        'SELECT "CaregiverID", "ProviderID", "SSN", "TimeZone" FROM caregivers JOIN providers USING ("ProviderID")'
    )
    caregivers = {row[0]: Caregiver(*row) for row in cursor.fetchall()}
    cursor.execute(
        'SELECT "VisitID", "CaregiverID", "SchStartTime", "SchEndTime", "VisitStartTime", "VisitEndTime",'
        ' "Latitude", "Longitude", "IsMissed", "PatientID" FROM visits JOIN patients USING ("PatientID")'
    )
    visits = [
        Visit(n, caregivers[who], (a, b), (c, d), None if x is None else (x, y), missed, patient)
        for n, who, a, b, c, d, x, y, missed, patient in cursor.fetchall()
    ]
    cursor.execute("SELECT * FROM inservices")
    sessions = [Session(n, caregivers[who], start, end) for n, who, start, end in cursor.fetchall()]
    cursor.execute("SELECT * FROM leaves")
    leaves = [Leave(n, caregivers[who], first, last) for n, who, first, last in cursor.fetchall()]
    return World(visits, sessions, leaves)


def insert(cursor: Cursor, table: str, rows: Iterable[list[object]]) -> None:
    """Rows into the first columns of a table."""
    values = list(rows)
    if not values:
        return
    cursor.execute(
        "SELECT array_agg(quote_ident(attname) ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum BETWEEN 1 AND %s",
        (f"public.{table}", len(values[0])),
    )
    (columns,) = cursor.fetchone()
    execute_values(cursor, f"INSERT INTO public.{table} ({', '.join(columns)}) VALUES %s", values)


def at(text: str, zone: str = NEW_YORK, fold: int = 0) -> datetime:
    """A moment by the wall clock of a time zone; fold 1 is the second pass of an hour that comes twice."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)


def span(start: str, end: str, zone: str = NEW_YORK) -> Times:
    return at(start, zone), at(end, zone)
