"""EventBridge Scheduler's expressions: rate(…), at(…) and cron(…), with their time zones."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from infra.local.errors import LocalStackError

UNITS = {"minute": 60, "hour": 3600, "day": 86400}
MONTHS = {name.upper(): number for number, name in enumerate(calendar.month_abbr) if name}
# Sunday is 1.
WEEKDAYS = {name: number for number, name in enumerate(("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"), 1)}
HORIZON_DAYS = 5 * 366


class ScheduleExpressionError(LocalStackError):
    """The schedule expression is not valid."""


def next_fire(expression: str, zone: str, after: datetime, first: datetime) -> datetime | None:
    """The first time later than `after` at which a schedule fires, in UTC; None when it never fires again.

    `first` is the schedule's start date or the moment it was created; a rate counts from there, beginning with it.
    Raises ScheduleExpressionError.
    """
    found = re.fullmatch(r"\s*(rate|at|cron)\((.*)\)\s*", expression)
    if not found:
        raise ScheduleExpressionError(f"not a schedule expression: {expression}")
    kind, argument = found[1], found[2].strip()
    if kind == "rate":
        return _next_rate(argument, after, first)
    if kind == "at":
        moment = _local_to_utc(_parse_at(argument), ZoneInfo(zone))
        return moment if moment and moment > after else None
    return _next_cron(Cron.parse(argument), ZoneInfo(zone), max(after, first - timedelta(seconds=1)))


def _next_rate(argument: str, after: datetime, first: datetime) -> datetime:
    found = re.fullmatch(r"([1-9]\d*)\s+(minute|hour|day)s?", argument)
    if not found:
        raise ScheduleExpressionError(f"not a rate: {argument}")
    if first > after:
        return first
    period = int(found[1]) * UNITS[found[2]]
    passed = int((after - first).total_seconds() // period) + 1
    return first + timedelta(seconds=passed * period)


def _parse_at(argument: str) -> datetime:
    try:
        return datetime.strptime(argument, "%Y-%m-%dT%H:%M:%S")
    except ValueError:
        raise ScheduleExpressionError(f"not a time (yyyy-mm-ddThh:mm:ss): {argument}") from None


def _local_to_utc(moment: datetime, zone: ZoneInfo) -> datetime | None:
    """None for a wall-clock time that does not exist on the day summer time begins; the schedule skips it."""
    utc = moment.replace(tzinfo=zone).astimezone(UTC)
    return utc if utc.astimezone(zone).replace(tzinfo=None) == moment else None


def _next_cron(cron: Cron, zone: ZoneInfo, after: datetime) -> datetime | None:
    today = after.astimezone(zone).date()
    for offset in range(HORIZON_DAYS):
        day = today + timedelta(days=offset)
        if not cron.matches(day):
            continue
        for hour in cron.hours:
            for minute in cron.minutes:
                moment = _local_to_utc(datetime.combine(day, time(hour, minute)), zone)
                if moment and moment > after:
                    return moment
    return None


@dataclass(frozen=True)
class Cron:
    """cron(minutes hours day-of-month month day-of-week year), its lists in order."""

    minutes: list[int]
    hours: list[int]
    months: set[int]
    years: set[int]
    day_of_month: str
    day_of_week: str

    @classmethod
    def parse(cls, argument: str) -> Cron:
        fields = argument.upper().split()
        if len(fields) != 6:
            raise ScheduleExpressionError(f"a cron expression has six fields: {argument}")
        minutes, hours, day_of_month, months, day_of_week, years = fields
        if "?" not in (day_of_month, day_of_week):
            raise ScheduleExpressionError(f"day of month or day of week must be ?: {argument}")
        cron = cls(
            sorted(_values(minutes, 0, 59)),
            sorted(_values(hours, 0, 23)),
            set(_values(months, 1, 12, MONTHS)),
            set(_values(years, 1970, 2199)),
            day_of_month,
            day_of_week,
        )
        cron.matches(date(2024, 1, 1))
        return cron

    def matches(self, day: date) -> bool:
        if day.month not in self.months or day.year not in self.years:
            return False
        if self.day_of_month != "?":
            return day.day in self._days_of_month(day)
        return self._is_weekday(day)

    def _days_of_month(self, day: date) -> set[int]:
        last = calendar.monthrange(day.year, day.month)[1]
        if self.day_of_month == "L":
            return {last}
        if found := re.fullmatch(r"(\d+|L)W", self.day_of_month):
            return {_nearest_workday(day, last if found[1] == "L" else min(int(found[1]), last), last)}
        return set(_values(self.day_of_month, 1, 31))

    def _is_weekday(self, day: date) -> bool:
        number = day.isoweekday() % 7 + 1
        if found := re.fullmatch(r"(\w+)#([1-5])", self.day_of_week):
            return number == _number(found[1], WEEKDAYS) and (day.day - 1) // 7 + 1 == int(found[2])
        if found := re.fullmatch(r"(\w+)L", self.day_of_week):
            is_last = day.day + 7 > calendar.monthrange(day.year, day.month)[1]
            return is_last and number == _number(found[1], WEEKDAYS)
        if self.day_of_week == "L":
            return number == 7
        return number in set(_values(self.day_of_week, 1, 7, WEEKDAYS))


def _nearest_workday(day: date, target: int, last: int) -> int:
    weekday = day.replace(day=target).weekday()
    if weekday == 5:
        return target - 1 if target > 1 else target + 2
    if weekday == 6:
        return target + 1 if target < last else target - 2
    return target


def _values(field: str, low: int, high: int, names: dict[str, int] | None = None) -> Iterator[int]:
    """The numbers of one field: `*`, `?`, lists, ranges and steps."""
    for part in field.split(","):
        span, _, step = part.partition("/")
        if span in ("*", "?"):
            first, last = low, high
        elif "-" in span:
            first, last = (_number(end, names) for end in span.split("-", 1))
        else:
            first = _number(span, names)
            last = high if step else first
        if not low <= first <= last <= high or (step and not step.isdigit()) or step == "0":
            raise ScheduleExpressionError(f"{part} is not between {low} and {high}")
        yield from range(first, last + 1, int(step or 1))


def _number(text: str, names: dict[str, int] | None) -> int:
    if names and text in names:
        return names[text]
    if not text.isdigit():
        raise ScheduleExpressionError(f"not a number: {text}")
    return int(text)
