"""The result of a check."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Level(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    """Something is not visible, or less than it could be."""
    PROBLEM = "problem"
    """Something is wrong or lost."""


class Finding(NamedTuple):
    """The result of one check."""

    check: str
    level: Level
    text: str
    remedy: str = ""
    """What to do; empty where all is well."""

    @property
    def code(self) -> str:
        """A stable name of the check: an anchor of `docs/troubleshooting.md`."""
        return f"doctor-{self.check.replace(' ', '-')}"


def ok(check: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, remedy: str) -> Finding:
    """Something is not visible."""
    return Finding(check, Level.WARNING, text, remedy)


def problem(check: str, text: str, remedy: str) -> Finding:
    """Something is wrong."""
    return Finding(check, Level.PROBLEM, text, remedy)
