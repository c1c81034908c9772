"""Times as text: RFC 3339 in UTC with microseconds, which sorts as text."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

from taskpilot_obs.exceptions import ConfigurationError

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
NANOSECONDS: Final = 1_000_000_000
"""In a second."""
_MICROS = 1_000_000
_THOUSANDS = tuple(f"{number:03}" for number in range(1_000))
_second: tuple[int, str] = (-_MICROS, "")


def rfc3339(unix_ns: int) -> str:
    """RFC 3339 in UTC with microseconds: `2026-11-21T09:30:00.000001Z`.

    Raises:
        TypeError: the time is not a whole number.
    """
    began, text = _second
    micros = unix_ns // 1_000 - began
    if not 0 <= micros < _MICROS:
        micros, text = _turn(unix_ns)
    # A table takes half as long as a format specification.
    return f"{text}{_THOUSANDS[micros // 1_000]}{_THOUSANDS[micros % 1_000]}Z"


def _turn(unix_ns: int) -> tuple[int, str]:
    """Begin another second; return the microseconds in it, and the text that its times share."""
    global _second  # noqa: PLW0603  the last second, which most lines share
    if type(unix_ns) is not int:
        raise TypeError(f"a time: expected whole nanoseconds, got {type(unix_ns).__name__}")
    second, rest = divmod(unix_ns, NANOSECONDS)
    text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
    _second = (second * _MICROS, text)
    return rest // 1_000, text


def utc_text(moment: datetime) -> str:
    """The timestamp, written from a `datetime` with a time zone."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def unix_seconds(text: str) -> float:
    """The time of an RFC 3339 text, in seconds since the Unix epoch.

    Raises:
        ValueError: it is not a time.
    """
    return datetime.fromisoformat(text).timestamp()


def aware(moment: datetime | None, name: str = "now") -> datetime:
    """The moment in UTC, or the present.

    Raises:
        ConfigurationError: it has no time zone.
    """
    if moment is None:
        return datetime.now(UTC)
    if moment.tzinfo is None:
        raise ConfigurationError(f"{name}: given {moment!r}; it needs a time zone")
    return moment.astimezone(UTC)
