"""Days, ISO weeks and months in a time zone, right over both changes of the clocks."""

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
    """The time zone of that name, such as "Europe/Berlin".

    Raises:
        ConfigurationError: there is none.
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
    """The day, ISO week (from Monday) or month of that zone's calendar that holds a moment.

    A day has 23, 24 or 25 hours where the clocks change.

    Raises:
        ConfigurationError: another period, an unknown zone, or a time without zone.
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
    """The first moment of a day; where the clocks skip midnight, the moment at which they do."""
    return datetime.combine(day, time(), zone).astimezone(UTC)
