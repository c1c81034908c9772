"""Windows of time."""

from __future__ import annotations

from datetime import timedelta

from taskpilot_obs._support.durations import EXPECTED, parse_duration
from taskpilot_obs.exceptions import ConfigurationError


def parse_window(window: timedelta | str) -> timedelta:
    """A window as a length of time: a `timedelta`, or text such as "60s", "15m", "1h30m", "3d".

    Raises:
        ConfigurationError: the text is not a duration, or is not longer than 0.
    """
    try:
        length = window if isinstance(window, timedelta) else parse_duration(window)
    except ValueError:
        raise ConfigurationError(f"window: given {window!r}; allowed are a timedelta, or {EXPECTED}") from None
    if length <= timedelta(0):
        raise ConfigurationError(f"window: given {window!r}; it must be longer than 0")
    return length
