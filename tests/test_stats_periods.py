"""Periods of statistics: days, months and years by name, from and to, open ends, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from taskpilot_obs.exceptions import ConfigurationError
from taskpilot_obs.stats.periods import bounds

NOW = datetime(2026, 11, 29, 15, 30, tzinfo=UTC)


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc, arg-type]  # a moment in UTC


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        ("24h", NOW - timedelta(days=1), NOW),
        (timedelta(hours=2), NOW - timedelta(hours=2), NOW),
        ("today", at(2026, 11, 29), NOW),
        ("yesterday", at(2026, 11, 28), at(2026, 11, 29)),
        ("2026-11", at(2026, 11, 1), NOW),
        ("2025-12", at(2025, 12, 1), at(2026, 1, 1)),
        ("2024-02-29", at(2024, 2, 29), at(2024, 3, 1)),
        ("2025", at(2025, 1, 1), at(2026, 1, 1)),
        (("2026-11-01", "2026-11-15"), at(2026, 11, 1), at(2026, 11, 15)),
        (("2026-11-01T12:00:00+01:00", None), at(2026, 11, 1, 11), NOW),
        ((None, date(2026, 11, 2)), at(1970, 1, 1), at(2026, 11, 2)),
        ((datetime(2026, 11, 1, tzinfo=timezone(timedelta(hours=2))), NOW), at(2026, 10, 31, 22), NOW),
    ],
)
def test_what_a_period_means(period: Any, start: datetime, end: datetime) -> None:
    """A length ends now, a named period at its end or now, from and to at their times; dates are midnight in UTC."""
    assert bounds(period, NOW) == (start, end)


@pytest.mark.parametrize(
    ("period", "message"),
    [
        ("2026-13", "no such day, month or year"),
        ("2025-02-29", "no such day, month or year"),
        ("2025-00", "no such day, month or year"),
        ("2025-03-00", "no such day, month or year"),
        ("0000", "no such day, month or year"),
        ("2027", "lies ahead"),
        ("tomorrow", "given 'tomorrow'"),
        (("2026-11-15", "2026-11-01"), "end after it begins"),
        (("01.11.2026", None), "not ISO 8601"),
        (("2026-11-01T12:00", None), "need a time zone"),
        ((3, None), "both ends are times"),
        (("2026-11-01",), "give two times"),
    ],
)
def test_what_is_no_period_is_refused(period: Any, message: str) -> None:
    """A period that cannot be read is refused with what was given and what to write."""
    with pytest.raises(ConfigurationError, match=message):
        bounds(period, NOW)
