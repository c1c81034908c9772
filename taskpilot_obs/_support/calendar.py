"""Days, ISO weeks and months in a time zone, correct across both clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo

from taskpilot_obs.exceptions import ConfigurationError

CalendarPeriod = Literal["day", "week", "month"]


class Calendar(NamedTuple):
    """One period of the calendar, [start, end), in UTC."""

    start: datetime
    end: datetime


def zone_of(name: str) -> tzinfo:
    """Return the time zone of a name such as "Europe/Berlin".

    Raises:
        ConfigurationError: there is no such zone.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ConfigurationError(
            f"timezone: given {name!r}, which this system does not know; allowed are IANA names such as 'Europe/Berlin'"
        ) from error


def calendar_period(period: CalendarPeriod, at: datetime, timezone: str = "UTC") -> Calendar:
    """Return the day, ISO week (from Monday) or month that contains a moment, in a zone's calendar.

    A day has 23, 24 or 25 hours where the clocks change.

    Raises:
        ConfigurationError: the period or the zone is unknown, or the time has no zone.
    """
    zone = zone_of(timezone)
    if at.tzinfo is None:
        raise ConfigurationError(f"at: given {at!r}; it needs a time zone")
    today = at.astimezone(zone).date()
    if period == "day":
        first, last = today, today + timedelta(days=1)
    elif period == "week":
        first = today - timedelta(days=today.weekday())
        last = first + timedelta(days=7)
    elif period == "month":
        first = today.replace(day=1)
        last = (first + timedelta(days=31)).replace(day=1)
    else:
        raise ConfigurationError(f"period: given {period!r}; allowed are 'day', 'week' and 'month'")
    return Calendar(_midnight(first, zone), _midnight(last, zone))


def _midnight(day: date, zone: tzinfo) -> datetime:
    """The first moment of a day; if the clocks skip midnight, the moment of the change."""
    return datetime.combine(day, time(), zone).astimezone(UTC)
