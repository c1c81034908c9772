"""Time: a monotonic clock for durations, anchored to the wall clock for timestamps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_REANCHOR_NS = 10_000_000_000
_READINGS = 5


class Clock:
    """A monotonic clock in nanoseconds, and its conversion to wall-clock time.

    The anchor is renewed every ten seconds, off the hot path, so that a stepped or slewed wall clock shows in
    timestamps but never in a duration.
    """

    def __init__(self) -> None:
        self._anchor()

    now: Callable[[], int] = staticmethod(time.perf_counter_ns)
    """Monotonic nanoseconds; only differences mean anything."""

    def unix_ns(self, ticks: int) -> int:
        """Nanoseconds since the Unix epoch of a `now()`."""
        return ticks + self.offset

    def ticks(self, unix_ns: int) -> int:
        """The `now()` of a wall-clock time; the inverse of `unix_ns`."""
        return unix_ns - self.offset

    def refresh(self) -> None:
        """Renew the anchor when it is old."""
        if time.perf_counter_ns() - self._anchored > _REANCHOR_NS:
            self._anchor()

    def _anchor(self) -> None:
        self._anchored = time.perf_counter_ns()
        self.offset = min(_measured() for _ in range(_READINGS)).offset_ns
        """Nanoseconds from `now()` to the Unix epoch's time, by the reading during which least time passed."""


class _Reading(NamedTuple):
    took_ns: int
    offset_ns: int


def _measured() -> _Reading:
    """Read both clocks, the wall clock first, so that the offset is never too large.

    A call whose end lies ahead of the wall clock would be missing from an answer about the time until now.
    """
    before, wall, after = time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()
    return _Reading(after - before, wall - after)
