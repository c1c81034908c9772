"""Times as text: RFC 3339 in UTC with microseconds, which sorts as text."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from taskpilot_obs.exceptions import ConfigurationError

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_second: tuple[int, str] = (-1, "")


def rfc3339(unix_ns: int) -> str:
    """RFC 3339 in UTC with microseconds: `2026-11-21T09:30:00.000001Z`."""
    global _second  # noqa: PLW0603  the last second's text, which most lines share
    if type(unix_ns) is not int:
        raise TypeError(f"a time: expected whole nanoseconds, got {type(unix_ns).__name__}")
    second, rest = divmod(unix_ns, 1_000_000_000)
    known, text = _second
    if known != second:
        text = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        _second = (second, text)
    return text + str(1_000_000 + rest // 1000)[1:] + "Z"  # a format specification takes twice as long


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
