"""Answers that are worked out once for everyone who asks within a moment, so that probes cost nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_MOST: Final = 256


class Cached(Generic[T]):
    """Keeps answers for a time. Threads that ask for the same one wait for the first of them.

    Args:
        lasts_s: for how long an answer is good.
        clock: monotonic seconds; for tests.
    """

    def __init__(self, lasts_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lasts_s = lasts_s
        self._clock = clock
        self._lock = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._held: dict[Hashable, tuple[float, T]] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The answer that is held, or a new one. What `make` raises is not kept."""
        with self._lock:
            if len(self._locks) >= _MOST and key not in self._locks:
                self._locks.clear()
                self._held.clear()
            own = self._locks.setdefault(key, threading.Lock())
        with own:
            held = self._held.get(key)
            if held is not None and self._clock() - held[0] < self._lasts_s:
                return held[1]
            made = make()
            self._held[key] = (self._clock(), made)
            return made
