"""Windows of time as people write them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from taskpilot_obs.exceptions import ConfigurationError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_WINDOW: Final = re.compile(r"(?:\d{1,9}[wdhms])+", re.ASCII)
_PART: Final = re.compile(r"(\d+)([wdhms])", re.ASCII)


def parse_window(window: timedelta | str) -> timedelta:
    """A window as a length of time: a `timedelta`, or text such as "60s", "15m", "1h30m", "3d".

    Raises:
        ConfigurationError: it is written otherwise, or not longer than 0.
    """
    length = window if isinstance(window, timedelta) else _parsed(window)
    if length <= timedelta(0):
        raise ConfigurationError(f"window: given {window!r}; it must be longer than 0")
    return length


def _parsed(text: str) -> timedelta:
    if not _WINDOW.fullmatch(str(text)):
        raise ConfigurationError(
            f"window: given {text!r}; allowed are a timedelta, or a number with a unit of s, m, h, d or w such as '15m'"
        )
    return timedelta(seconds=sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))
