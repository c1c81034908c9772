"""Parses durations such as "15m": one grammar for options, windows, rules and the command line."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""Seconds of each unit, as Prometheus defines them."""
EXPECTED: Final = "a number with a unit of s, m, h, d or w such as '15m', or several such as '1h30m'"
_WHOLE: Final = re.compile(r"(?:\d{1,9}[wdhms])+", re.ASCII)
_PART: Final = re.compile(r"(\d+)([wdhms])", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Parse a duration such as "90s", "15m", "1h30m", "3d" or "2w".

    Raises:
        ValueError: the text is not a duration, or is longer than `timedelta` allows.
    """
    if not _WHOLE.fullmatch(str(text)):
        raise ValueError(f"given {text!r}; allowed is {EXPECTED}")
    try:
        return timedelta(seconds=sum(int(number) * UNITS[unit] for number, unit in _PART.findall(text)))
    except OverflowError:
        raise ValueError(f"given {text!r}, which is too long") from None
