"""What a check says."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """Something is not seen, or less than it could be."""
    PROBLEM = "problem"
    """Something is wrong or lost."""


class Finding(NamedTuple):
    """One thing that was looked at."""

    check: str
    level: Level
    text: str
    remedy: str = ""
    """What to do; empty where all is well."""


def ok(check: str, text: str) -> Finding:
    """All is well."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Something is not seen."""
    return Finding(check, Level.WARNING, text, remedy)


def problem(check: str, text: str, remedy: str) -> Finding:
    """Something is wrong."""
    return Finding(check, Level.PROBLEM, text, remedy)
