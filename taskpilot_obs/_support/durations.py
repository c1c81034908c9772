"""Lengths of time as people write them: one grammar for options, windows, rules and the command line."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""Seconds of each unit, as Prometheus has them."""
EXPECTED: Final = "a number with a unit of s, m, h, d or w such as '15m', or several such as '1h30m'"
_WHOLE: Final = re.compile(r"(?:\d{1,9}[wdhms])+", re.ASCII)
_PART: Final = re.compile(r"(\d+)([wdhms])", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """The length of time that a text states: "90s", "15m", "1h30m", "3d", "2w".

    Raises:
        ValueError: it is written otherwise, or is longer than Python can count.
    """
    if not _WHOLE.fullmatch(str(text)):
        raise ValueError(f"given {text!r}; allowed is {EXPECTED}")
    try:
        return timedelta(seconds=sum(int(number) * UNITS[unit] for number, unit in _PART.findall(text)))
    except OverflowError:
        raise ValueError(f"given {text!r}, which is too long") from None
