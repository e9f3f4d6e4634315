"""What conflict_report has to find, by comparing everything with everything in plain Python."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from tests.packs.conflict_report.world import Place, Times, Visit, World

REASONS = (
    "same_visit_time", "visit_times_overlap", "schedule_is_visit_time", "schedule_over_visit_time",
    "same_schedule", "schedules_overlap", "travel_time", "in_service", "leave",
)  # fmt: skip
Span = tuple[datetime, datetime]
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Meeting:
    """Two visits of one person, compared."""

    other: Visit
    reason: str
    other_provider: bool
    sch: timedelta | None
    actual: timedelta | None
    cross: timedelta | None
    same_sch: bool
    same_actual: bool
    same_cross: bool
    gap: timedelta
    miles: float | None
    travel: int | None

    @property
    def overlap(self) -> timedelta | None:
        return longest(self.sch, self.actual, self.cross)

    @property
    def badness(self) -> tuple[int, bool, timedelta, int]:
        """Sorts the worst first."""
        return (REASONS.index(self.reason), not self.other_provider, -(self.overlap or -MINUTE), self.other.VisitID)


def expect(world: World, own: Visit, mph: float = 30, window: int = 120) -> dict[str, Any]:
    """The computed columns of the conflict row of a visit."""
    spans = [s for s in (usable(own.sch), usable(own.actual)) if s]
    comparable = world.visit_date(own) is not None and identified(own) and bool(spans)
    meetings = sorted(meet(world, own, mph, window), key=lambda m: m.badness) if comparable else []
    sessions = {s.InServiceID: span_minutes for s in world.sessions if comparable and identified_as(s, own)
                and (span_minutes := longest(*(shared((s.StartTime, s.EndTime), mine) for mine in spans)))}  # fmt: skip
    leaves = [v.LeaveID for v in world.leaves if comparable and identified_as(v, own)
              and longest(*(shared(days_off(v), mine) for mine in spans))]  # fmt: skip
    reasons = [m.reason for m in meetings] + ["in_service"] * bool(sessions) + ["leave"] * bool(leaves)
    status = "undetermined" if not comparable else "conflict" if reasons else "clear"
    return {
        "ConflictStatus": status,
        "ConflictType": reasons[0] if reasons else None,
        "ConflictCount": len(meetings),
        "OtherProviderConflictCount": sum(m.other_provider for m in meetings),
        **of_worst(meetings[0] if meetings else None),
        "InServiceFlag": bool(sessions),
        "InServiceID": min(sessions, default=None),
        "InServiceOverlapMinutes": sum(sessions.values(), timedelta()) // MINUTE if sessions else None,
        "PTOFlag": bool(leaves),
        "LeaveID": min(leaves, default=None),
    }


def of_worst(m: Meeting | None) -> dict[str, Any]:
    """The columns that describe the worst conflict."""
    other = m and m.other
    sch, actual = (usable(other.sch), usable(other.actual)) if other else (None, None)
    return {
        "ConVisitID": other and other.VisitID,
        "ConProviderID": other and other.caregiver.ProviderID,
        "ConCaregiverID": other and other.caregiver.CaregiverID,
        "ConPatientID": other and other.patient_id,
        "ConSchStartTime": sch and sch[0],
        "ConSchEndTime": sch and sch[1],
        "ConVisitStartTime": actual and actual[0],
        "ConVisitEndTime": actual and actual[1],
        "SameProviderFlag": m is not None and not m.other_provider,
        "SameSchTimeFlag": m is not None and m.same_sch,
        "SchOverAnotherSchTimeFlag": m is not None and m.sch is not None and not m.same_sch,
        "SameVisitTimeFlag": m is not None and m.same_actual,
        "VisitTimeOverAnotherVisitTimeFlag": m is not None and m.actual is not None and not m.same_actual,
        "SchAndVisitTimeSameFlag": m is not None and m.same_cross,
        "SchTimeOverVisitTimeFlag": m is not None and m.cross is not None and not m.same_cross,
        "SchOverlapMinutes": m and minutes(m.sch),
        "VisitOverlapMinutes": m and minutes(m.actual),
        "OverlapMinutes": m and minutes(m.overlap),
        "Distance": m and m.miles,
        "MinuteDiff": m and (None if m.overlap else minutes(m.gap)),
        "TravelMinutes": m and m.travel,
        "DistanceFlag": m is not None and m.reason == "travel_time",
    }


def meet(world: World, own: Visit, mph: float, window: int) -> Iterator[Meeting]:
    """Every conflict of a visit with another one of the same person."""
    sch, actual = usable(own.sch), usable(own.actual)
    present = actual or sch
    assert present
    for other in world.by_ssn[own.caregiver.SSN]:
        osch, oactual = usable(other.sch), usable(other.actual)
        opresent = oactual or osch
        if other is own or other.missed or opresent is None:
            continue
        same_sch, same_actual = bool(sch) and sch == osch, bool(actual) and actual == oactual
        same_cross = (bool(sch) and sch == oactual) or (bool(actual) and actual == osch)
        both_sch, both_actual = shared(sch, osch), shared(actual, oactual)
        cross = longest(shared(sch, oactual), shared(actual, osch))
        gap = max(opresent[0] - present[1], present[0] - opresent[1])
        miles = distance(own.place, other.place)
        travel = None if miles is None else math.ceil(miles * 60 / mph)
        too_far = travel is not None and gap < min(travel, window) * MINUTE
        holds = (same_actual, both_actual, same_cross, cross, same_sch, both_sch, too_far)
        reason = next((name for name, true in zip(REASONS, holds, strict=False) if true), None)
        if reason:
            yield Meeting(
                other, reason, other.caregiver.ProviderID != own.caregiver.ProviderID, both_sch, both_actual, cross,
                bool(same_sch), bool(same_actual), bool(same_cross), gap, miles, travel,
            )  # fmt: skip


def usable(times: Times) -> Span | None:
    """The times in UTC, where arithmetic is about instants and not about a wall clock."""
    start, end = times
    if start is None or end is None:
        return None
    span = start.astimezone(UTC), end.astimezone(UTC)
    return span if span[0] < span[1] else None


def shared(a: Times | None, b: Times | None) -> timedelta | None:
    one, two = usable(a) if a else None, usable(b) if b else None
    if one is None or two is None:
        return None
    both = min(one[1], two[1]) - max(one[0], two[0])
    return both if both > timedelta() else None


def longest(*spans: timedelta | None) -> timedelta | None:
    return max((s for s in spans if s is not None), default=None)


def minutes(span: timedelta | None) -> int | None:
    return None if span is None else span // MINUTE


def identified(visit: Visit) -> bool:
    return re.fullmatch(r"\d{3}-\d\d-\d{4}", visit.caregiver.SSN or "") is not None


def identified_as(absence: Any, own: Visit) -> bool:
    return bool(absence.caregiver.SSN == own.caregiver.SSN)


def days_off(leave: Any) -> Times:
    """From midnight to the midnight after the last day, by the agency's clock."""
    zone = ZoneInfo(leave.caregiver.zone)
    start = datetime.combine(leave.StartDate, time(), zone)
    return start, datetime.combine(leave.EndDate + timedelta(days=1), time(), zone)


def distance(a: Place, b: Place) -> float | None:
    """Great-circle miles by the formula for the angle between two vectors, which is exact near and far."""
    if a is None or b is None:
        return None
    (lat1, lon1), (lat2, lon2) = (tuple(map(math.radians, p)) for p in (a, b))
    across = math.hypot(
        math.cos(lat2) * math.sin(lon2 - lon1),
        math.cos(lat1) * math.sin(lat2) - math.sin(lat1) * math.cos(lat2) * math.cos(lon2 - lon1),
    )
    along = math.sin(lat1) * math.sin(lat2) + math.cos(lat1) * math.cos(lat2) * math.cos(lon2 - lon1)
    return round(3958.8 * math.atan2(across, along), 2)
