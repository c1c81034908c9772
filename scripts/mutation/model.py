"""A change, and what became of it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

KILLED: Final = "killed"
HUNG: Final = "hung"
SURVIVED: Final = "survived"
NOT_RUN: Final = "not run"
AT_IMPORT: Final = "at import"
"""A new interpreter has to try the change, because an import runs the changed statement."""
NOTICED: Final = frozenset({KILLED, HUNG})
ASSERTION: Final = "assertion"
EXCEPTION: Final = "exception"
ENDED: Final = "ended"
"""How a killed change was noticed: what the test asserts does not hold, another exception reached the test, or the
process of the test ended."""


class Change(NamedTuple):
    """One change of one function."""

    path: Path
    function: str
    """`usage.read.StreamReader.feed`."""
    difference: str
    """The lines that go and the lines that come."""
    number: int
    """Counts changes of the function that read alike."""
    line: int
    text: str
    """The module with the change in it."""

    @property
    def key(self) -> str:
        """Names the change, whatever the other lines of its module are."""
        return f"{self.function} #{self.number} {self.difference}"

    @property
    def identity(self) -> str:
        """Names the change for as long as its module has this text."""
        return f"{_digest(self.path)} {self.key}"

    def without_change(self) -> Change:
        """The control of this change: every function gets new code, moved down by a line, which does what it did."""
        return self._replace(text="\n" + self.path.read_text(encoding="utf-8"))


class Failure(NamedTuple):
    """What noticed a change."""

    test: str
    how: str
    """`assertion`, `exception`, or how its process ended."""


class Verdict(NamedTuple):
    """What became of a change."""

    outcome: str
    by: str = ""
    """The test that failed."""
    how: str = ""
    """Of its `Failure`."""
    tests: tuple[str, ...] = ()
    """Those that a new interpreter has to try."""


@cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
