"""Caches answers for a short time, so that many requests for one answer cost as much as one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

T = TypeVar("T")
_MOST: Final = 256


class Cached(Generic[T]):
    """Caches answers for a time. Threads that request one answer wait for the first of them.

    Args:
        lasts_s: how long an answer is valid.
        clock: monotonic seconds; for tests.
    """

    def __init__(self, lasts_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lasts_s = lasts_s
        self._clock = clock
        self._lock = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._held: dict[Hashable, tuple[float, T]] = {}

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the cached answer, or a new one. Exceptions of `make` are not cached."""
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
