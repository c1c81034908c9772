"""The stretch of time that a question is about: a length until now, a day, a month, a year, or from and to."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from taskpilot_obs._support.timestamps import aware
from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.golden_signals.durations import parse_window

Moment = datetime | date | str
"""A time with a zone, or in ISO 8601. A date is its midnight in UTC."""
Period = str | timedelta | tuple[Moment | None, Moment | None]
"""A length until now (`"24h"`, a `timedelta`), a name (`"today"`, `"2026-11"`), or from and to, where None is open."""

_DATED: Final = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?")
_FIRST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_DECEMBER: Final = 12


def bounds(period: Period, now: datetime | None = None) -> tuple[datetime, datetime]:
    """The stretch of time that is meant, in UTC; it ends now at the latest, unless its end is a stated time.

    Args:
        period: what `Period` describes.
        now: the present, for tests.

    Raises:
        ConfigurationError: it cannot be read, is empty, lies ahead, or has a time without zone.
    """
    present = aware(now)
    if isinstance(period, tuple):
        return _from_to(period, present)
    named = _named(period, present) if isinstance(period, str) else None
    if named is not None:
        start, end = named
        if start >= present:
            raise ConfigurationError(f"period: given {period!r}; that lies ahead")
        return start, min(end, present)
    length = parse_window(period)
    try:
        return present - length, present
    except OverflowError as error:
        raise ConfigurationError(f"period: given {period!r}; that is before the calendar begins") from error


def _named(period: str, now: datetime) -> tuple[datetime, datetime] | None:
    """The day, month or year that a text names; None where it is a length of time."""
    midnight = datetime.combine(now.astimezone(UTC), time(), UTC)
    if period == "today":
        return midnight, midnight + _DAY
    if period == "yesterday":
        return midnight - _DAY, midnight
    dated = _DATED.fullmatch(period)
    if dated is None:
        return None
    year, month, day = (None if part is None else int(part) for part in dated.groups())
    try:
        start = datetime(year or 0, 1 if month is None else month, 1 if day is None else day, tzinfo=UTC)
        return start, _end_of(start, month, day)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"period: given {period!r}; there is no such day, month or year") from error


def _end_of(start: datetime, month: int | None, day: int | None) -> datetime:
    if day is not None:
        return start + _DAY
    if month is None or month == _DECEMBER:
        return start.replace(year=start.year + 1, month=1)
    return start.replace(month=month + 1)


def _from_to(period: tuple[Moment | None, Moment | None], now: datetime) -> tuple[datetime, datetime]:
    if len(period) != 2:  # noqa: PLR2004  from and to
        raise ConfigurationError(f"period: given {period!r}; give two times, from and to")
    first, last = period
    start = _FIRST if first is None else _moment(first, period)
    end = now if last is None else _moment(last, period)
    if start >= end:
        raise ConfigurationError(f"period: given {period!r}; it must end after it begins")
    return start, end


def _moment(given: Moment, period: object) -> datetime:
    found = _parsed(given, period) if isinstance(given, str) else given
    if not isinstance(found, datetime):
        if not isinstance(found, date):
            raise ConfigurationError(f"period: given {period!r}; both ends are times, dates, ISO 8601 texts or None")
        return datetime.combine(found, time(), UTC)
    if found.tzinfo is None:
        raise ConfigurationError(f"period: given {period!r}; both times need a time zone")
    return found.astimezone(UTC)


def _parsed(text: str, period: object) -> datetime | date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"period: given {period!r}; {text!r} is not ISO 8601: write 2026-11-05 or 2026-11-05T12:00:00+01:00"
        ) from error
